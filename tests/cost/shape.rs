//! A gateway with so many routes, instances and keys, and requests that touch all of them in turn.

use std::fmt::Write;

use crate::traffic::BODY;

#[derive(Clone, Copy)]
pub struct Shape {
    pub workers: usize,
    pub routes: usize,
    pub instances: usize,
    pub load_balancing: &'static str,
    /// Clients that a rate limit tells apart; none without a limit.
    pub keys: usize,
    pub connections: usize,
}

impl Shape {
    /// What the tables vary one number of.
    pub const USUAL: Shape = Shape {
        workers: 1,
        routes: 10,
        instances: 3,
        load_balancing: "round_robin",
        keys: 0,
        connections: 8,
    };

    /// `origin` is the port that it listens on at every loopback address: each of them counts as an instance.
    pub fn configuration(&self, origin: u16) -> String {
        let instances = (0..self.instances)
            .map(|number| format!("'http://127.0.{}.{}:{origin}'", number / 250, number % 250 + 1))
            .collect::<Vec<_>>();
        let mut text = format!(
            "workers: {}
listeners: [{{ name: http, bind: '127.0.0.1:0', limits: {{ idle_timeout: 600s }} }}]
observability: {{ access_log: {{ output: off }} }}
services:
  api: {{ instances: [{}], load_balancing: {}, pool: {{ max_connections: 4096, idle_timeout: 600s }} }}
",
            self.workers,
            instances.join(", "),
            self.load_balancing,
        );
        let mut policy = "";
        if self.keys > 0 {
            // A token is back after an hour, so that no key is forgotten meanwhile.
            let _ = writeln!(
                text,
                "rate_limits: {{ each: {{ key: 'header:x-client', rate: 1/h, burst: 1000000, max_keys: {} }} }}",
                self.keys
            );
            policy = "rate_limits: [each], ";
        }
        let _ = writeln!(
            text,
            "routes:\n  - {{ name: here, match: {{ path: /here }}, {policy}respond: {{ status: 200, text: '{BODY}' }} }}"
        );
        for number in 0..self.routes {
            let Place { host, resource } = Place::of(number);
            let path = match number % 3 {
                0 => format!("prefix: /gateway/api/resource-{resource:05}"),
                1 => format!("path: '/gateway/api/resource-{resource:05}/{{id}}/orders'"),
                _ => format!("path: /gateway/api/resource-{resource:05}/special"),
            };
            let _ = writeln!(
                text,
                "  - {{ name: r{number}, match: {{ {path}, hosts: [{host}] }}, {policy}forward: {{ service: api }} }}"
            );
        }
        text
    }

    /// Neighbouring numbers are for different routes, kinds of routes and keys.
    pub fn request(&self, number: usize) -> String {
        let number = number * 7919;
        let Place { host, resource } = Place::of(number % self.routes);
        let rest = ["/a/b", "/4711/orders", "/special"][number % self.routes % 3];
        let mut request =
            format!("GET /gateway/api/resource-{resource:05}{rest} HTTP/1.1\r\nhost: {host}\r\n");
        self.end(number, &mut request);
        request
    }

    /// A request that the gateway answers itself, but that counts for its key.
    pub fn introduction(&self, key: usize) -> String {
        let mut request = "GET /here HTTP/1.1\r\nhost: host\r\n".to_owned();
        self.end(key, &mut request);
        request
    }

    fn end(&self, number: usize, request: &mut String) {
        if self.keys > 0 {
            let _ = write!(request, "x-client: {:07}\r\n", number % self.keys);
        }
        request.push_str("user-agent: bench/1.0\r\naccept: application/json\r\n\r\n");
    }

    /// The same requests, for wrk.
    pub fn script(&self) -> String {
        format!(
            r#"local number, rests = 0, {{ [0] = "/a/b", "/4711/orders", "/special" }}
request = function()
  number = (number + 7919) % {}
  local resource = math.floor(number / 3)
  local path = string.format("/gateway/api/resource-%05d%s", resource, rests[number % 3])
  return wrk.format("GET", path, {{ Host = string.format("host-%02d.example.com", number % 100) }})
end
"#,
            self.routes
        )
    }
}

/// Routes as an organisation has them: a hundred hosts, on each of them resources with a prefix, a path with a
/// parameter and a literal path. Neighbours have different hosts, because what a connection's last request had is
/// remembered.
struct Place {
    host: String,
    resource: usize,
}

impl Place {
    fn of(route: usize) -> Place {
        Place { host: format!("host-{:02}.example.com", route % 100), resource: route / 3 }
    }
}
