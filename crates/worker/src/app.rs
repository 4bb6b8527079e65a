//! One load of the app: its template, its groups, and how its first workers came up.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyserve_core::{Code, Error, GroupSpec, Upgrades};
use anyserve_sched::{GroupId, Pools};
use parking_lot::Mutex;

use crate::dispatch::Inner;
use crate::group::{WorkerGroup, limits_of, pool_group};
use crate::pool::{Nursery, StartError};
use crate::routes::Routes;
use crate::template::{Manifest, Template, TemplateConfig, TemplateError};

/// Time for one fork: it takes milliseconds, but a machine may be busy.
const FORK_TIMEOUT: Duration = Duration::from_secs(10);

/// One load of the app. The first is number 1; each reload is one more.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) number: u32,
    /// The process that has loaded it and forks its workers.
    pub(crate) template: Option<Template>,
    /// Files that it was loaded from.
    pub(crate) files: Vec<PathBuf>,
    /// Some group needs GPUs, so that those that need none are given none.
    pub(crate) uses_gpus: bool,
    /// What a query may become where nothing here serves it: the rules of all its groups, each once.
    pub(crate) upgrades: Upgrades,
    /// Its first workers are up: what fails from now on is started again.
    settled: AtomicBool,
    /// Why they did not come up; the first reason.
    failed: Mutex<Option<StartError>>,
}

// === impl App ===

impl App {
    /// Why its first workers did not come up.
    pub(crate) fn failure(&self) -> Option<StartError> {
        self.failed.lock().clone()
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.settled.load(Relaxed)
    }

    pub(crate) fn settle(&self) {
        self.settled.store(true, Relaxed);
    }

    /// One of its first workers did not start. Later reasons follow from the first.
    pub(crate) fn fail(&self, error: &StartError) {
        if !self.is_settled() {
            self.failed.lock().get_or_insert_with(|| error.clone());
        }
    }

    #[cfg(test)]
    pub(crate) fn for_tests() -> Arc<Self> {
        Arc::new(Self::bare())
    }

    /// The first load of an app that has nothing.
    #[cfg(test)]
    pub(crate) fn bare() -> Self {
        Self::new(1, None, Vec::new())
    }

    fn new(number: u32, template: Option<Template>, files: Vec<PathBuf>) -> Self {
        let (settled, failed, upgrades) = (AtomicBool::new(false), Mutex::default(), Upgrades::default());
        Self { number, template, files, uses_gpus: false, upgrades, settled, failed }
    }
}

// === impl Inner ===

impl Inner {
    /// Loads the app and adds its groups, whose workers are started from then on. Requests do not go to them yet.
    ///
    /// # Errors
    /// [`StartError`] if the app cannot be loaded, or its workers need more than there is; nothing has changed then.
    pub(crate) async fn load_app(&self, nursery: &Nursery, number: u32) -> Result<Vec<Arc<WorkerGroup>>, StartError> {
        let (config, Nursery { spawner, directory }) = (self.template_config(), nursery);
        let started = Template::start(spawner, &config, directory, self.loads.fetch_add(1, Relaxed)).await;
        let (template, manifest) = started.map_err(|error| self.not_loaded(error))?;
        let Manifest { groups, files, no_fork } = manifest;
        if let Some(why) = &no_fork {
            tracing::info!(reason = why, "workers are started anew instead of being forked");
        }
        let uses_gpus = groups.iter().any(|group| group.needs.gpus > 0);
        let upgrades = upgrades_of(&groups)?;
        let template = Some(template).filter(|_| no_fork.is_none());
        let app = Arc::new(App { uses_gpus, upgrades, ..App::new(number, template, files) });
        self.add_groups(&app, groups)
    }

    fn template_config(&self) -> TemplateConfig {
        let config = &self.config;
        let mut arguments: Vec<OsString> = ["-m", "anyserve.worker.template"].map(Into::into).into();
        arguments.extend(config.target.iter().cloned());
        arguments.extend((!config.fork).then(|| "--no-fork".into()));
        TemplateConfig {
            program: config.program.clone(),
            arguments,
            environment: config.environment.clone(),
            max_meta: config.limits.max_meta,
            start_timeout: config.start_timeout,
            fork_timeout: FORK_TIMEOUT,
        }
    }

    fn add_groups(&self, app: &Arc<App>, specs: Vec<GroupSpec>) -> Result<Vec<Arc<WorkerGroup>>, StartError> {
        self.check_needs(&specs).map_err(|message| StartError { message, traceback: String::new() })?;
        let mut fleet = self.fleet.lock();
        let mut groups = Vec::with_capacity(specs.len());
        for spec in specs {
            let limits = limits_of(&spec, self.config.limits.max_queue);
            let id = self.dispatch.lock().machine.add_group(limits);
            let added = fleet.pools.add_beside(id, pool_group(&spec, self.config.workers));
            added.map_err(|error| StartError { message: error.to_string(), traceback: String::new() })?;
            groups.push(Arc::new(WorkerGroup::new(id, spec, app, self.config.workers)));
        }
        let all: Vec<_> = self.groups.load().iter().chain(&groups).cloned().collect();
        self.groups.store(Arc::new(all));
        drop(fleet);
        self.replan.notify_one();
        Ok(groups)
    }

    /// Whether the workers of these groups, by themselves, find what they need.
    fn check_needs(&self, specs: &[GroupSpec]) -> Result<(), String> {
        let mut pools = Pools::new(self.config.resources.clone(), self.config.policy);
        for (number, spec) in specs.iter().enumerate() {
            let added = pools.add_group(GroupId(number), pool_group(spec, self.config.workers));
            added.map_err(|error| format!("the worker group '{}': {error}", spec.name))?;
        }
        Ok(())
    }

    fn not_loaded(&self, error: TemplateError) -> StartError {
        let program = self.config.program.display();
        let (message, traceback) = match error {
            TemplateError::Failed(error) => (error.message, error.traceback.unwrap_or_default()),
            TemplateError::Spawn(error) => {
                let message =
                    format!("the worker's program '{program}' cannot be started ({error}); give another with --python");
                (message, String::new())
            }
            TemplateError::TimedOut(after) => {
                (format!("the workers are not ready: the app was not loaded within {after:?}"), String::new())
            }
            error => (format!("the worker did not start: {error}"), String::new()),
        };
        StartError { message, traceback }
    }

    /// What a query may become where nothing here serves it.
    pub(crate) fn upgrades(&self) -> Upgrades {
        self.routes.load().upgrades()
    }

    /// Requests go to these groups from now on, and to no others.
    pub(crate) fn route_to(&self, groups: &[Arc<WorkerGroup>]) {
        let routes = Routes::new(groups, &self.routes.load());
        self.routes.store(Arc::new(routes));
        self.publish_catalog();
    }

    /// Waits until as many workers of these groups are ready as are always there.
    ///
    /// # Errors
    /// Why the first that did not start did not.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn come_up(&self, groups: &[Arc<WorkerGroup>]) -> Result<(), StartError> {
        let Some(app) = groups.first().map(|group| Arc::clone(&group.app)) else { return Ok(()) };
        self.until(|| app.failure().is_some() || groups.iter().all(|group| group.is_up())).await;
        if let Some(error) = app.failure() {
            Err(error)
        } else {
            app.settle();
            Ok(())
        }
    }

    /// Waits until something is so, looking at every change of the workers.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn until(&self, is_so: impl Fn() -> bool) {
        let mut version = self.version.subscribe();
        loop {
            version.borrow_and_update();
            if is_so() {
                return;
            }
            // The sender is this very struct's.
            if version.changed().await.is_err() {
                return;
            }
        }
    }
}

/// The rules of all groups, in their order, each once.
fn upgrades_of(groups: &[GroupSpec]) -> Result<Upgrades, StartError> {
    let mut texts: Vec<&str> = Vec::new();
    for text in groups.iter().flat_map(|group| &group.upgrades) {
        if !texts.contains(&text.as_str()) {
            texts.push(text);
        }
    }
    Upgrades::parse(texts).map_err(|error| StartError { message: error.to_string(), traceback: String::new() })
}

// === impl StartError ===

impl From<StartError> for Error {
    fn from(error: StartError) -> Self {
        let StartError { message, traceback } = error;
        let error = Self::new(Code::Unavailable, message);
        if traceback.is_empty() { error } else { error.with_traceback(traceback) }
    }
}
