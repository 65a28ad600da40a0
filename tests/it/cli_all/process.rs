//! `ic serve --all` as a child process.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::cli_home::{Home, free_port};
use crate::support::wait_until;

/// `ic serve --all`, killed when it is dropped.
pub struct All {
    child: Child,
    said: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl All {
    /// Starts it in the home.
    #[track_caller]
    pub fn start(home: &Home, arguments: &[&str]) -> All {
        All::of(home.command([&["serve", "--all"], arguments].concat()))
    }

    /// Starts this command.
    #[track_caller]
    pub fn of(mut command: Command) -> All {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program can be run");
        let mut errors = BufReader::new(child.stderr.take().expect("a pipe"));
        let said = Arc::new(Mutex::new(String::new()));
        let text = Arc::clone(&said);
        let reader = std::thread::spawn(move || {
            let mut line = String::new();
            while errors.read_line(&mut line).is_ok_and(|read| read > 0) {
                text.lock().expect("no holder panics").push_str(&line);
                line.clear();
            }
        });
        All {
            child,
            said,
            reader: Some(reader),
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its standard error up to now.
    pub fn said(&self) -> String {
        self.said.lock().expect("no holder panics").clone()
    }

    /// Waits until its standard error contains `text`; returns all of it.
    #[track_caller]
    pub fn wait_for(&self, text: &str) -> String {
        self.wait_for_count(text, 1)
    }

    /// Waits until its standard error contains `text` so often.
    #[track_caller]
    pub fn wait_for_count(&self, text: &str, count: usize) -> String {
        wait_until(text, Ok(()), || {
            let said = self.said();
            match said.matches(text).count() >= count {
                true => Ok(()),
                false => Err(said),
            }
        });
        self.said()
    }

    /// The numbers of its descriptors and of its resident KiB; zero where the system does not say.
    pub fn resources(&self) -> (usize, u64) {
        let process = PathBuf::from(format!("/proc/{}", self.pid()));
        let descriptors = std::fs::read_dir(process.join("fd")).map_or(0, Iterator::count);
        let status = std::fs::read_to_string(process.join("status")).unwrap_or_default();
        let resident = status.lines().find_map(|line| {
            let number = line.strip_prefix("RssAnon:")?.trim();
            number.split(' ').next()?.parse().ok()
        });
        (descriptors, resident.unwrap_or(0))
    }

    /// What it says of itself on the port; `None` where it is not served by this process.
    pub fn health(&self, port: u16) -> Option<Value> {
        health(port).filter(|health| health["pid"] == self.pid())
    }

    /// Its exit code; `None` if it still runs or was killed.
    pub fn exit_code(&mut self) -> Option<i32> {
        let status = self.child.try_wait().expect("a child can be waited for");
        status.and_then(|status| status.code())
    }

    /// Sends SIGTERM and waits for its exit.
    #[track_caller]
    pub fn stop(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it runs");
        let status = self.child.wait().expect("a child can be waited for");
        assert_eq!(status.code(), Some(0), "{}", self.said());
    }
}

impl Drop for All {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = self.reader.take().map(JoinHandle::join);
        let said = self.said();
        if std::thread::panicking() {
            eprintln!("standard error of ic serve --all:\n{said}");
        } else {
            assert!(!said.contains("panicked at"), "{said}");
        }
    }
}

/// A home whose projects `shop`, the current folder, and `web` have free ports.
pub fn home_with_two() -> (Home, [u16; 2]) {
    let home = Home::new();
    let ports = [free_port(), free_port()];
    let (shop, web) = (home.path("shop"), home.folder("web"));
    let home = home.with_mappings(&[(&shop, ports[0]), (&web, ports[1])], ports[0]);
    (home, ports)
}

/// The address of a port for clients.
pub fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Whether something listens on the port.
pub fn connects(port: u16) -> bool {
    TcpStream::connect(at(port)).is_ok()
}

/// What an interceptor on the port says of itself.
pub fn health(port: u16) -> Option<Value> {
    let mut stream = TcpStream::connect(at(port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let request = "GET /_ic/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).ok()?;
    let mut response = String::new();
    stream.read_to_string(&mut response).ok()?;
    let (_, body) = response.split_once("\r\n\r\n")?;
    serde_json::from_str(body).ok()
}

/// The command that runs the interceptor on the port.
pub fn served_by(port: u16) -> Option<String> {
    Some(health(port)?["served_by"].as_str()?.to_owned())
}

/// The instance identifier of the interceptor on the port.
pub fn identity_on(port: u16) -> Option<String> {
    Some(health(port)?["instance_id"].as_str()?.to_owned())
}
