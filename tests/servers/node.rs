//! A node in a process of its own, as the tests drive it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

pub(crate) struct Node {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Node {
    pub(crate) fn start(url: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_node"))
            .arg(url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the node binary starts");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let mut node = Self { child, input, output };
        assert_eq!(node.reply(), "ready");
        node
    }

    /// Sends a command without waiting for its reply.
    pub(crate) fn send(&mut self, command: &str) {
        writeln!(self.input, "{command}").expect("the node is alive");
        self.input.flush().expect("the node is alive");
    }

    pub(crate) fn reply(&mut self) -> String {
        let mut line = String::new();
        let read = self.output.read_line(&mut line).expect("the node is alive");
        assert_ne!(read, 0, "the node has died; its standard error says why");
        line.trim_end().to_owned()
    }

    pub(crate) fn ask(&mut self, command: &str) -> String {
        self.send(command);
        self.reply()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
