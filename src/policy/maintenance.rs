//! Maintenance: a reply for everyone while something is being done.
//!
//! Whether its file exists is looked at beside the requests, which read what came of it: nothing on their way
//! touches the disk.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use http::HeaderValue;

use crate::config;
use crate::http::interned;
use crate::http::networks::{Networks, Verdict};

pub struct Maintenance {
    enabled: bool,
    switch: Option<Arc<Switch>>,
    retry_after: HeaderValue,
    except: Networks,
}

/// On while its file exists. Of one file there is one, which lives on over reloads.
pub struct Switch {
    path: PathBuf,
    on: AtomicBool,
}

impl Maintenance {
    /// `None` where it never is. `switch` gives the one of a file.
    pub fn compile(
        config: &config::Maintenance,
        switch: impl FnOnce(&Path) -> Arc<Switch>,
    ) -> Option<Maintenance> {
        let switch = config.while_file_exists.as_ref().map(|path| switch(path));
        if !config.enabled && switch.is_none() {
            return None;
        }
        let seconds = config.retry_after.as_millis().div_ceil(1000);
        Some(Maintenance {
            enabled: config.enabled,
            switch,
            retry_after: interned::value(&HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX))),
            except: Networks::compile(config.except.iter().map(|network| (*network, Verdict::Allowed))),
        })
    }

    pub fn is_on_for(&self, client: IpAddr) -> bool {
        let on = self.enabled || self.switch.as_ref().is_some_and(|switch| switch.is_on());
        on && self.except.verdict(client) == Verdict::Unlisted
    }

    pub fn retry_after(&self) -> &HeaderValue {
        &self.retry_after
    }
}

impl Switch {
    /// As it is now: on if the file exists. Nobody knows until [`look`](Self::look) is asked again.
    pub fn new(path: &Path) -> Switch {
        let switch = Switch { path: path.to_owned(), on: AtomicBool::new(false) };
        // What can't be told now is told by whoever looks next.
        let _ = switch.look();
        switch
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn is_on(&self) -> bool {
        self.on.load(Relaxed)
    }

    /// Looks whether the file exists, and returns whether that is new.
    ///
    /// # Errors
    ///
    /// When it can't be told; everything stays as it was then.
    pub fn look(&self) -> io::Result<bool> {
        // A link to nowhere is a file that somebody put there.
        let exists = match std::fs::symlink_metadata(&self.path) {
            Ok(_) => true,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                false
            }
            Err(error) => return Err(error),
        };
        Ok(self.on.swap(exists, Relaxed) != exists)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn config() -> config::Maintenance {
        config::Maintenance {
            enabled: false,
            while_file_exists: None,
            retry_after: Duration::from_millis(1500),
            except: vec!["10.0.0.0/8".parse().expect("a network")],
        }
    }

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn off_is_none_at_all() {
        assert!(Maintenance::compile(&config(), Switch::new_of).is_none());
    }

    #[test]
    fn those_who_are_excepted_are_served() {
        let on = config::Maintenance { enabled: true, ..config() };
        let on = Maintenance::compile(&on, Switch::new_of).expect("it is on");
        assert!(on.is_on_for(CLIENT));
        assert!(!on.is_on_for("::ffff:10.1.2.3".parse().expect("an address")));
        assert_eq!(on.retry_after(), "2");
    }

    #[test]
    fn a_file_of_any_kind_counts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("down");
        let switch = Switch::new(&path);
        assert!(!switch.is_on() && !switch.look().unwrap());
        std::os::unix::fs::symlink("nowhere", &path).unwrap();
        assert!(switch.look().unwrap() && switch.is_on() && !switch.look().unwrap());
        std::fs::remove_file(&path).unwrap();
        assert!(switch.look().unwrap() && !switch.is_on());
        std::fs::create_dir(&path).unwrap();
        assert!(switch.look().unwrap() && Switch::new(&path).is_on());
    }

    impl Switch {
        fn new_of(path: &Path) -> Arc<Switch> {
            Arc::new(Switch::new(path))
        }
    }
}
