//! The start of a template: its process, its connection, its manifest.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyserve_core::Error;
use anyserve_wire::{Kind, message};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::manifest::Told;
use super::owner::Owner;
use super::wire::Wire;
use super::{MAX_ORDERS, Manifest, ProtocolError, Template, TemplateConfig, TemplateError};
use crate::handshake::random_token;
use crate::output::log_lines;
use crate::process::{Process, Spawner};

/// Connections that may be listened to at the same time; only one of them is the template.
const MAX_GREETINGS: usize = 16;
/// Time that is left, after the process has ended, to what it said and printed before.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A template that has not said what it has.
struct Starting {
    process: Process,
    listener: UnixListener,
    socket: PathBuf,
    greetings: JoinSet<Greeting>,
    output: JoinSet<()>,
    token: String,
    max_meta: usize,
}

/// What a connection came to, and the process at its other end.
type Greeting = (Option<u32>, Result<(Wire, Told), ProtocolError>);

/// What a start waits for.
enum Happened {
    Connected(io::Result<UnixStream>),
    Greeted(Box<Greeting>),
    Exited(io::Result<ExitStatus>),
}

// === impl Template ===

impl Template {
    /// Starts the process and waits until the app is loaded in it. What it prints is logged with the name `template`.
    /// From now on, orphans of this process's children become its own and are reaped.
    ///
    /// `directory` is private, and `number` unique in it.
    ///
    /// # Errors
    /// [`TemplateError`]; there is no process then.
    ///
    /// # Cancel safety
    /// Dropping the future kills the process.
    pub(crate) async fn start(
        spawner: &Spawner,
        config: &TemplateConfig,
        directory: &Path,
        number: u32,
    ) -> Result<(Self, Manifest), TemplateError> {
        let socket = directory.join(format!("template-{number}.sock"));
        let mut starting = Starting::begin(spawner, config, socket).await.map_err(TemplateError::Spawn)?;
        let told = tokio::time::timeout(config.start_timeout, starting.told()).await;
        let (wire, told) = told.unwrap_or(Err(TemplateError::TimedOut(config.start_timeout)))?;
        match told {
            Told::Loaded(manifest) => Ok((starting.settle(wire, config, &manifest), manifest)),
            Told::Failed(error) => Err(starting.fail(error).await),
        }
    }
}

// === impl Starting ===

impl Starting {
    async fn begin(spawner: &Spawner, config: &TemplateConfig, socket: PathBuf) -> io::Result<Self> {
        spawner.adopt_orphans()?;
        let token = random_token()?;
        let listener = UnixListener::bind(&socket)?;
        let (process, stdout, stderr) = spawner.spawn(command(config, &socket, &token)).await?;
        let mut output = JoinSet::new();
        output.spawn(log_lines(stdout, "template".to_owned(), "stdout"));
        output.spawn(log_lines(stderr, "template".to_owned(), "stderr"));
        let greetings = JoinSet::new();
        Ok(Self { process, listener, socket, greetings, output, token, max_meta: config.max_meta })
    }

    /// Waits for the manifest of our own template, whoever else connects.
    async fn told(&mut self) -> Result<(Wire, Told), TemplateError> {
        loop {
            match self.wait().await {
                Happened::Connected(stream) => self.listen_to(stream.map_err(ProtocolError::from)?),
                Happened::Greeted(greeting) => {
                    if let Some(told) = self.judge(*greeting)? {
                        return Ok(told);
                    }
                }
                Happened::Exited(status) => return self.last_words(status).await,
            }
        }
    }

    /// # Cancel safety
    /// Safe.
    async fn wait(&mut self) -> Happened {
        let room = self.greetings.len() < MAX_GREETINGS;
        tokio::select! {
            biased;
            Some(greeting) = self.greetings.join_next(), if !self.greetings.is_empty() => {
                let greeting = greeting.unwrap_or_else(|error| (None, Err(io::Error::other(error).into())));
                Happened::Greeted(Box::new(greeting))
            }
            stream = self.listener.accept(), if room => Happened::Connected(stream.map(|(stream, _)| stream)),
            status = self.process.exited() => Happened::Exited(status),
        }
    }

    fn listen_to(&mut self, stream: UnixStream) {
        let (mut wire, token) = (Wire::new(stream, self.max_meta), self.token.clone());
        self.greetings.spawn(async move {
            let peer = wire.peer();
            let told = read(&mut wire, &token).await;
            (peer, told.map(|told| (wire, told)))
        });
    }

    /// Who breaks the protocol is our template, or a stranger that is turned away.
    fn judge(&self, (peer, told): Greeting) -> Result<Option<(Wire, Told)>, TemplateError> {
        match told {
            Ok(told) => Ok(Some(told)),
            // Its end says more than that its socket is closed.
            Err(ProtocolError::Closed) => Ok(None),
            Err(error) if peer == Some(self.process.id()) => Err(error.into()),
            Err(error) => {
                tracing::warn!(reason = error.to_string(), "connection to the template's socket refused");
                Ok(None)
            }
        }
    }

    /// It may have told why it cannot load the app just before it ended.
    async fn last_words(&mut self, status: io::Result<ExitStatus>) -> Result<(Wire, Told), TemplateError> {
        let accepted = tokio::time::timeout(Duration::from_millis(1), self.listener.accept()).await;
        if let Ok(Ok((stream, _))) = accepted {
            self.listen_to(stream);
        }
        let ended = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        let rest = async {
            while let Some(greeting) = self.greetings.join_next().await {
                if let Ok(greeting) = greeting
                    && let Some(told) = self.judge(greeting)?
                {
                    return Ok(told);
                }
            }
            Err(TemplateError::Ended(ended.clone()))
        };
        let told = tokio::time::timeout(LAST_WORDS, rest).await;
        let told = told.unwrap_or(Err(TemplateError::Ended(ended)));
        self.log_the_rest().await;
        told
    }

    async fn log_the_rest(&mut self) {
        let rest = async { while self.output.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LAST_WORDS, rest).await;
    }

    async fn fail(mut self, error: Error) -> TemplateError {
        // It ends by itself, and what it printed belongs to the reason.
        let _ = tokio::time::timeout(LAST_WORDS, self.process.exited()).await;
        self.log_the_rest().await;
        TemplateError::Failed(error)
    }

    fn settle(self, wire: Wire, config: &TemplateConfig, manifest: &Manifest) -> Template {
        let _ = std::fs::remove_file(&self.socket);
        let (orders, taken) = mpsc::channel(MAX_ORDERS);
        let can_fork = Arc::new(AtomicBool::new(manifest.no_fork.is_none()));
        let owner = Owner {
            process: self.process,
            wire,
            output: self.output,
            orders: taken,
            can_fork: Arc::clone(&can_fork),
            fork_timeout: config.fork_timeout,
        };
        let owner = AbortOnDropHandle::new(tokio::spawn(owner.run()));
        Template { orders, can_fork, _owner: Arc::new(owner) }
    }
}

fn command(config: &TemplateConfig, socket: &Path, token: &str) -> Command {
    let mut command = Command::new(&config.program);
    command.args(&config.arguments).arg("--socket").arg(socket);
    // It runs the users' code, which the operator's secret is none of the business of.
    command.env_remove("ANYSERVE_ADMIN_TOKEN");
    command.envs(config.environment.iter().map(|(name, value)| (name, value)));
    command.env("ANYSERVE_WORKER_TOKEN", token);
    command
}

async fn read(wire: &mut Wire, token: &str) -> Result<Told, ProtocolError> {
    let manifest: message::Manifest = wire.expect(Kind::Manifest, "Manifest").await?.message()?;
    Told::try_new(manifest, token)
}
