//! A relay between the gateway and a source, to see when the source has said something.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

pub struct Relay {
    pub address: SocketAddr,
    said: Arc<Mutex<Option<Instant>>>,
    task: AbortHandle,
}

impl Relay {
    /// Notes when the last bytes were passed on of an answer that `is_it` picks, by how many bytes its
    /// connection has had so far and what these are.
    pub async fn to(server: SocketAddr, is_it: fn(usize, &[u8]) -> bool) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("the loopback has ports");
        let address = listener.local_addr().expect("it is bound");
        let said = Arc::new(Mutex::new(None));
        let noted = said.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let noted = noted.clone();
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(server).await {
                        pass(client, server, is_it, &noted).await;
                    }
                });
            }
        });
        Relay { address, said, task: task.abort_handle() }
    }

    /// When it said it last.
    pub fn said(&self) -> Option<Instant> {
        *self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is said from now on counts.
    pub fn listen_anew(&self) {
        *self.said.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(
    client: TcpStream,
    server: TcpStream,
    is_it: fn(usize, &[u8]) -> bool,
    noted: &Mutex<Option<Instant>>,
) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let questions = tokio::io::copy(&mut from_client, &mut to_server);
    let answers = async {
        let (mut so_far, mut buffer) = (0, vec![0; 64 * 1024]);
        while let Ok(length @ 1..) = from_server.read(&mut buffer).await {
            so_far += length;
            if is_it(so_far, &buffer[..length]) {
                *noted.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            }
            if to_client.write_all(&buffer[..length]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        _ = questions => {}
        () = answers => {}
    }
}
