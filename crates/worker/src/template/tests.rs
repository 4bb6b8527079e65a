//! Templates that are scripted: real processes and forks, and everything that a template could do wrong.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use anyserve_core::{Code, DEFAULT_GROUP, Error};
use anyserve_wire::message;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::*;
use crate::process::{AdoptError, Spawner};

const STUB: &str = include_str!("stub.py");
/// Ends a test that waits for what never comes.
const WATCHDOG: Duration = Duration::from_secs(30);
/// A limit that is reached: nothing is waited for that could come in time.
const SHORT: Duration = Duration::from_millis(50);

/// A folder with the script and a manifest.
struct Stage {
    folder: tempfile::TempDir,
    spawner: Spawner,
    config: TemplateConfig,
}

// === impl Stage ===

impl Stage {
    fn new(steps: &[&str]) -> Self {
        let groups = vec![message::Group { name: DEFAULT_GROUP.into(), ..Default::default() }];
        Self::with_manifest(steps, &message::Manifest { groups, ..Default::default() })
    }

    fn with_manifest(steps: &[&str], manifest: &message::Manifest) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (stub, meta) = (folder.path().join("stub.py"), folder.path().join("manifest"));
        std::fs::write(&stub, STUB).unwrap();
        std::fs::write(&meta, manifest.encode_to_vec()).unwrap();
        let steps = steps.iter().map(Into::into);
        let config = TemplateConfig {
            program: "python3".into(),
            arguments: [stub.into(), meta.into()].into_iter().chain(steps).collect(),
            environment: vec![],
            max_meta: 1 << 20,
            start_timeout: WATCHDOG,
            fork_timeout: WATCHDOG,
        };
        Self { folder, spawner: Spawner::start(), config }
    }

    async fn start(&self) -> Result<(Template, Manifest), TemplateError> {
        Template::start(&self.spawner, &self.config, self.folder.path(), 0).await
    }

    async fn started(&self) -> Template {
        self.start().await.unwrap().0
    }

    async fn refused(&self) -> TemplateError {
        let Err(error) = self.start().await else { panic!("it started") };
        error
    }
}

fn order(worker: u32, group: &str) -> ForkOrder {
    let environment = vec![("A".to_owned(), "b".to_owned())];
    ForkOrder { worker, group: group.into(), socket: "/s".into(), token: "secret".into(), environment }
}

async fn fork_error(template: &Template) -> ForkError {
    let Err(error) = template.fork(&order(1, "any")).await else { panic!("it forked") };
    error
}

async fn text(mut stream: Receiver) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

/// The worker's end, which must come.
async fn end(process: &mut Process) -> ExitStatus {
    tokio::time::timeout(WATCHDOG, process.exited()).await.expect("it ends").unwrap()
}

/// Waits until nobody has this process's number.
async fn gone(pid: u32) {
    let path = format!("/proc/{pid}");
    let gone = async {
        while Path::new(&path).exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(WATCHDOG, gone).await.expect("it is reaped");
}

#[tokio::test]
async fn workers_are_forked_and_watched_as_if_we_had_spawned_them() {
    let stage = Stage::new(&["connect", "manifest", "fork", "fork", "fork"]);
    let (template, manifest) = stage.start().await.unwrap();
    assert_eq!((manifest.groups[0].name.as_str(), manifest.no_fork, template.can_fork()), (DEFAULT_GROUP, None, true));
    let (mut exits, stdout, stderr) = template.fork(&order(1, "exit:3")).await.unwrap();
    assert_eq!(end(&mut exits).await.code(), Some(3));
    assert_eq!(end(&mut exits).await.code(), Some(3), "it may be asked again");
    assert_eq!((text(stdout).await, text(stderr).await), ("group exit:3\n".to_owned(), "socket /s\n".to_owned()));
    let (mut dies, _stdout, _stderr) = template.fork(&order(2, "die")).await.unwrap();
    assert_eq!(end(&mut dies).await.signal(), Some(9));
    let (mut runs, _stdout, _stderr) = template.fork(&order(3, "run")).await.unwrap();
    runs.kill();
    assert_eq!(end(&mut runs).await.signal(), Some(9));
}

#[tokio::test]
async fn orders_of_several_callers_are_carried_out_one_by_one() {
    let stage = Stage::new(&["connect", "manifest", "fork", "fork", "fork", "fork", "hang"]);
    let template = stage.started().await;
    let mut all = tokio::task::JoinSet::new();
    for worker in 1..=4 {
        let template = template.clone();
        all.spawn(async move {
            template.fork(&order(worker, &format!("exit:{worker}"))).await.map(|forked| (worker, forked))
        });
    }
    while let Some(forked) = all.join_next().await {
        let (worker, (mut process, _stdout, _stderr)) = forked.unwrap().unwrap();
        assert_eq!(end(&mut process).await.code(), i32::try_from(worker).ok());
    }
    assert!(template.can_fork());
}

#[tokio::test]
async fn a_worker_that_is_dropped_is_killed_and_reaped() {
    let stage = Stage::new(&["connect", "manifest", "fork", "hang"]);
    let template = stage.started().await;
    let (process, stdout, _) = template.fork(&order(1, "run")).await.unwrap();
    let pid = process.id();
    drop(process);
    assert!("group run\n".starts_with(&text(stdout).await), "and nobody writes any more");
    gone(pid).await;
}

#[tokio::test]
async fn workers_live_on_when_their_template_dies() {
    let stage = Stage::new(&["connect", "manifest", "fork", "exit:7"]);
    let template = stage.started().await;
    let (mut worker, _stdout, _stderr) = template.fork(&order(1, "run")).await.unwrap();
    assert!(matches!(fork_error(&template).await, ForkError::Gone | ForkError::Protocol(ProtocolError::Closed)));
    assert!(!template.can_fork());
    assert!(matches!(fork_error(&template).await, ForkError::Gone), "and it stays so");
    assert!(Path::new(&format!("/proc/{}", worker.id())).exists());
    worker.kill();
    assert_eq!(end(&mut worker).await.signal(), Some(9), "it was alive");
}

#[tokio::test]
async fn the_last_handle_takes_the_template_with_it_and_no_worker() {
    let stage = Stage::new(&["connect", "manifest", "fork", "hang"]);
    let template = stage.started().await;
    let (mut worker, _stdout, _stderr) = template.fork(&order(1, "run")).await.unwrap();
    let second = template.clone();
    drop(template);
    assert!(second.can_fork());
    drop(second);
    worker.kill();
    assert_eq!(end(&mut worker).await.signal(), Some(9), "it was alive");
}

#[tokio::test]
async fn an_app_that_cannot_be_loaded_is_the_reason_with_its_traceback() {
    let failed = message::Failed::from(&Error::invalid("no such module").with_traceback("line 1"));
    let manifest = message::Manifest { failed: Some(failed), ..Default::default() };
    for steps in [&["connect", "manifest", "exit:2"][..], &["connect", "manifest", "hang"]] {
        let TemplateError::Failed(error) = Stage::with_manifest(steps, &manifest).refused().await else {
            panic!("it said why")
        };
        assert_eq!((error.code, error.message.as_str()), (Code::InvalidInput, "no such module"));
        assert_eq!(error.traceback.as_deref(), Some("line 1"));
    }
}

#[tokio::test]
async fn one_that_cannot_fork_says_why_and_is_not_asked() {
    let groups = vec![message::Group { name: "a".into(), ..Default::default() }];
    let manifest = message::Manifest { groups, no_fork: "threads".into(), ..Default::default() };
    let stage = Stage::with_manifest(&["connect", "manifest", "exit:0"], &manifest);
    let (template, manifest) = stage.start().await.unwrap();
    assert_eq!((manifest.no_fork.as_deref(), template.can_fork()), (Some("threads"), false));
    assert!(matches!(fork_error(&template).await, ForkError::Gone));
}

#[tokio::test]
async fn a_template_that_ends_before_its_manifest_is_told_with_its_status() {
    for (steps, status) in [(&["exit:7"][..], "exit status: 7"), (&["connect", "exit:0"], "exit status: 0")] {
        let TemplateError::Ended(why) = Stage::new(steps).refused().await else { panic!("{steps:?}") };
        assert_eq!(why, status);
    }
    let mut stage = Stage::new(&[]);
    stage.config.program = "/no/such/program".into();
    assert!(matches!(stage.refused().await, TemplateError::Spawn(_)));
}

#[tokio::test]
async fn a_template_that_says_nothing_times_out() {
    for steps in [&["hang"][..], &["connect", "hang"], &["connect", "close", "hang"]] {
        let mut stage = Stage::new(steps);
        stage.config.start_timeout = SHORT;
        assert!(matches!(stage.refused().await, TemplateError::TimedOut(SHORT)), "{steps:?}");
    }
}

#[tokio::test]
async fn a_template_that_breaks_the_protocol_is_refused() {
    for (steps, part) in [
        (
            &["connect", "bytes:ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff", "hang"][..],
            "no frame",
        ),
        (&["connect", "ping", "hang"], "a Ping frame instead of Manifest"),
        (&["connect", "huge:1048577", "hang"], "no frame"),
    ] {
        let TemplateError::Protocol(error) = Stage::new(steps).refused().await else { panic!("{steps:?}") };
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[tokio::test]
async fn a_manifest_at_the_limit_is_read() {
    let manifest = |len| {
        let groups = vec![message::Group { name: "a".into(), ..Default::default() }];
        message::Manifest { groups, files: vec![format!("/{}", "f".repeat(len))], ..Default::default() }
    };
    let token = 2 + 32;
    let room = (1 << 20) - token - (manifest(500_000).encoded_len() - 500_000);
    for (len, legal) in [(room - 1, true), (room, true), (room + 1, false)] {
        let stage = Stage::with_manifest(&["connect", "manifest", "hang"], &manifest(len));
        assert_eq!(stage.start().await.is_ok(), legal, "{len}");
    }
}

#[tokio::test]
async fn strangers_are_turned_away_and_the_template_is_still_heard() {
    let mut stage = Stage::new(&["connect"]);
    let (socket, gate) = (stage.folder.path().join("template-0.sock"), stage.folder.path().join("gate"));
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &gate, fifo, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR, 0).unwrap();
    let steps = [format!("gate:{}", gate.display()), "manifest".into(), "hang".into()];
    stage.config.arguments.extend(steps.map(Into::into));
    let stranger = async {
        let mut stream = loop {
            match UnixStream::connect(&socket).await {
                Ok(stream) => break stream,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        stream.write_all(&[0xff; 64]).await.unwrap();
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap_or(0), 0, "it is turned away");
        tokio::task::spawn_blocking(move || std::fs::write(gate, "")).await.unwrap().unwrap();
    };
    let (started, ()) = tokio::join!(stage.start(), stranger);
    assert!(started.unwrap().0.can_fork());
}

#[tokio::test]
async fn a_template_that_does_not_know_its_secret_is_refused() {
    let stage = Stage::new(&["stranger", "hang"]);
    assert!(matches!(stage.refused().await, TemplateError::Protocol(ProtocolError::Stranger)));
}

#[tokio::test]
async fn a_template_that_refuses_a_fork_is_asked_again() {
    let stage = Stage::new(&["connect", "manifest", "refuse:a thread runs in it", "fork", "hang"]);
    let template = stage.started().await;
    let ForkError::Refused(why) = fork_error(&template).await else { panic!("it refused") };
    assert_eq!((why.as_str(), template.can_fork()), ("a thread runs in it", true));
    assert!(template.fork(&order(1, "run")).await.is_ok());
}

#[tokio::test]
async fn a_template_that_dies_while_it_forks_is_gone() {
    let stage = Stage::new(&["connect", "manifest", "order", "exit:1"]);
    let template = stage.started().await;
    assert!(matches!(fork_error(&template).await, ForkError::Protocol(ProtocolError::Closed)));
    assert!(!template.can_fork());
}

#[tokio::test]
async fn a_template_that_hangs_in_a_fork_is_killed() {
    let mut stage = Stage::new(&["connect", "manifest", "hang"]);
    stage.config.fork_timeout = SHORT;
    let template = stage.started().await;
    assert!(matches!(fork_error(&template).await, ForkError::TimedOut(SHORT)));
    assert!(!template.can_fork());
    assert!(matches!(fork_error(&template).await, ForkError::Gone));
}

#[tokio::test]
async fn a_template_that_speaks_unasked_is_killed() {
    let stage = Stage::new(&["connect", "manifest", "ping", "hang"]);
    let template = stage.started().await;
    let killed = async {
        while template.can_fork() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(WATCHDOG, killed).await.expect("it is noticed");
}

#[tokio::test]
async fn what_is_no_new_worker_of_ours_is_never_touched() {
    let mut bystander = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let own = format!("name:{}", bystander.id());
    for (step, part) in [
        ("name:0", "0 is no process's number"),
        ("name:4294967295", "4294967295 is no process's number"),
        ("name:1", "process 1 is no child"),
        (own.as_str(), "not in one of its own"),
        ("follower", "not in one of its own"),
    ] {
        let template = Stage::new(&["connect", "manifest", step, "hang"]).started_and_kept().await;
        let ForkError::Adopt(error) = fork_error(&template.0).await else { panic!("{step}") };
        assert!(error.to_string().contains(part), "{error}");
        assert!(!template.0.can_fork());
    }
    assert!(bystander.try_wait().unwrap().is_none(), "it runs");
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[tokio::test]
async fn a_worker_is_not_forked_twice_nor_under_another_number() {
    let stage = Stage::new(&["connect", "manifest", "remember", "twice", "hang"]);
    let template = stage.started().await;
    let first = template.fork(&order(1, "run")).await.unwrap();
    assert!(matches!(fork_error(&template).await, ForkError::Adopt(AdoptError::Claimed { .. })));
    assert!(Path::new(&format!("/proc/{}", first.0.id())).exists());
    let template = Stage::new(&["connect", "manifest", "another", "hang"]).started_and_kept().await;
    let error = fork_error(&template.0).await;
    assert!(matches!(error, ForkError::Protocol(ProtocolError::Worker { got: 2, expected: 1 })), "{error}");
}

// === impl Stage ===

impl Stage {
    /// The template with what it needs.
    async fn started_and_kept(self) -> (Template, Self) {
        (self.started().await, self)
    }
}
