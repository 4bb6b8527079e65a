//! The start of a worker's process: forked off the app's template, or spawned anew.

use std::io;
use std::path::{Path, PathBuf};

use anyserve_core::Resources;
use anyserve_sched::WorkerId;
use tokio::io::AsyncRead;
use tokio::process::Command;

use crate::config::PoolConfig;
use crate::fleet::Station;
use crate::group::WorkerGroup;
use crate::process::{Process, Spawner};
use crate::template::ForkOrder;

/// What a process prints.
pub(crate) type Output = Box<dyn AsyncRead + Send + Unpin>;

/// A process that is to be started.
pub(crate) struct Birth<'a> {
    pub(crate) config: &'a PoolConfig,
    pub(crate) station: &'a Station,
    pub(crate) worker: WorkerId,
    pub(crate) socket: &'a Path,
    pub(crate) token: &'a str,
}

/// The variable that says which tokens a worker has: `token=1,other=2`.
const RESOURCES: &str = "ANYSERVE_RESOURCES";

// === impl Birth ===

impl Birth<'_> {
    /// Starts the process, with its outputs piped to us.
    pub(crate) async fn begin(&self, spawner: &Spawner) -> io::Result<(Process, Output, Output)> {
        if let Some(forked) = self.fork().await {
            return Ok(forked);
        }
        let (process, stdout, stderr) = spawner.spawn(self.command()).await?;
        Ok((process, Box::new(stdout), Box::new(stderr)))
    }

    /// Forks it off the template, where that is possible.
    async fn fork(&self) -> Option<(Process, Output, Output)> {
        let group = &self.station.group;
        let template = group.app.template.as_ref().filter(|template| template.can_fork())?;
        if group.spec.python.is_some() {
            return None;
        }
        let order = ForkOrder {
            worker: self.worker.0,
            group: group.name().to_owned(),
            socket: self.socket.to_owned(),
            token: self.token.to_owned(),
            environment: self.environment(),
        };
        match template.fork(&order).await {
            Ok((process, stdout, stderr)) => Some((process, Box::new(stdout), Box::new(stderr))),
            Err(error) => {
                tracing::warn!(worker = self.station.name, reason = %error, "not forked but started anew");
                None
            }
        }
    }

    fn command(&self) -> Command {
        let (config, group) = (self.config, &self.station.group);
        let mut command = Command::new(group.program(config));
        command.args(["-m", "anyserve.worker"]).args(&config.target).arg("--group").arg(group.name());
        command.arg("--socket").arg(self.socket).arg("--worker-id").arg(self.worker.0.to_string());
        // The workers run the users' code, which is none of the operator's business.
        command.env_remove("ANYSERVE_ADMIN_TOKEN");
        command.envs(config.environment.iter().map(|(name, value)| (name, value)));
        command.envs(self.environment());
        command.env("ANYSERVE_WORKER_TOKEN", self.token);
        command
    }

    /// Its group's variables, and those that say what it has.
    fn environment(&self) -> Vec<(String, String)> {
        let Station { group, grant, .. } = self.station;
        let mut variables = group.spec.environment.clone();
        if group.app.uses_gpus {
            variables.push(("CUDA_VISIBLE_DEVICES".to_owned(), grant.gpus.join(",")));
        }
        variables.push((RESOURCES.to_owned(), shown(grant)));
        variables
    }
}

fn shown(grant: &Resources) -> String {
    let token = |(name, amount): (&String, &u32)| format!("{name}={amount}");
    grant.tokens.iter().filter(|(_, amount)| **amount > 0).map(token).collect::<Vec<_>>().join(",")
}

// === impl WorkerGroup ===

impl WorkerGroup {
    /// The program of its workers.
    pub(crate) fn program(&self, config: &PoolConfig) -> PathBuf {
        self.spec.python.clone().unwrap_or_else(|| config.program.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_worker_is_told_of_the_tokens_that_it_has() {
        let tokens = BTreeMap::from([("a".to_owned(), 2), ("b".to_owned(), 0), ("c".to_owned(), 1)]);
        assert_eq!(shown(&Resources { gpus: vec![], tokens }), "a=2,c=1");
        assert_eq!(shown(&Resources::default()), "");
    }
}
