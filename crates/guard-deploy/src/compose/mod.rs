//! A compose project, asked by the `docker` program: which services it should have, and how its containers are.
//!
//! What decides which project is meant (directory, name, files, files of variables) is pinned on the command line; no
//! `COMPOSE_*` variable of anybody reaches it. Nothing here starts, stops or makes a container.

mod containers;
mod images;
mod mounts;
mod watched;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use guard_model::deploy::Compose;
use serde::Deserialize;

pub(crate) use containers::{Container, containers};
pub use images::Tag;
pub(crate) use images::{images, pin, repin, resolve, unpin};
pub(crate) use mounts::{since, stale};
pub(crate) use watched::{Watched, faults};

use crate::bounded::Context;

/// One question to docker takes so long at most.
pub(crate) const ASKING: Duration = Duration::from_secs(20);

/// What the compose files say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Project {
    /// The name that its containers carry.
    pub(crate) name: String,
    /// The services that should have a container.
    pub(crate) services: BTreeMap<String, Service>,
}

/// A service as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    /// The image's reference.
    pub(crate) image: String,
    /// Others wait until it has ended well: it is meant to end.
    pub(crate) is_one_shot: bool,
}

/// `docker compose` with everything pinned.
pub(crate) fn arguments(context: &Context, compose: &Compose) -> Vec<String> {
    let mut all = vec!["compose".to_owned(), "--ansi=never".to_owned()];
    all.push(format!("--project-directory={}", context.root.display()));
    all.extend(compose.project.iter().map(|p| format!("--project-name={p}")));
    all.extend(compose.files.iter().map(|f| format!("--file={f}")));
    all.extend(compose.env_files.iter().map(|f| format!("--env-file={f}")));
    all
}

/// As somebody would type it in the root.
pub(crate) fn by_hand(compose: &Compose, rest: &str) -> String {
    let mut words = vec!["docker".to_owned(), "compose".to_owned()];
    let mut add = |flag: &str, value: &String| {
        let quoted = shlex::try_quote(value).map_or_else(|_| value.clone(), |q| q.into_owned());
        words.extend([flag.to_owned(), quoted]);
    };
    compose.project.iter().for_each(|p| add("-p", p));
    compose.files.iter().for_each(|f| add("-f", f));
    compose.env_files.iter().for_each(|f| add("--env-file", f));
    words.push(rest.to_owned());
    words.join(" ")
}

fn docker(context: &Context) -> Command {
    context.command("docker")
}

/// Asks docker; what it printed, or why it did not answer.
pub(crate) fn ask<S: AsRef<std::ffi::OsStr>>(context: &Context, arguments: &[S]) -> Result<Vec<u8>, String> {
    let done = context.run(docker(context).args(arguments), ASKING).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => "docker is not installed".to_owned(),
        _ => format!("cannot run docker: {e}"),
    })?;
    if done.is_good() { Ok(done.out) } else { Err(format!("docker: {}", done.complaint())) }
}

#[derive(Deserialize)]
struct Config {
    name: String,
    #[serde(default)]
    services: BTreeMap<String, ConfigService>,
}

#[derive(Deserialize)]
struct ConfigService {
    image: Option<String>,
    scale: Option<u64>,
    deploy: Option<ConfigDeploy>,
    #[serde(default)]
    depends_on: BTreeMap<String, ConfigDependence>,
}

#[derive(Deserialize)]
struct ConfigDeploy {
    replicas: Option<u64>,
}

#[derive(Deserialize)]
struct ConfigDependence {
    condition: Option<String>,
}

/// What the compose files say, by compose's own reading of them.
///
/// # Errors
/// Why it could not be told.
pub(crate) fn project(context: &Context, compose: &Compose) -> Result<Project, String> {
    let mut all = arguments(context, compose);
    all.extend(["config", "--format=json"].map(str::to_owned));
    let text = ask(context, &all)?;
    let config: Config = serde_json::from_slice(&text)
        // The parser's words could repeat a value.
        .map_err(|e| format!("docker compose config answered what cannot be read (line {})", e.line()))?;
    of(config, &compose.services)
}

fn of(config: Config, wanted: &[String]) -> Result<Project, String> {
    let one_shots: BTreeSet<&String> = config
        .services
        .values()
        .flat_map(|s| &s.depends_on)
        .filter(|(_, how)| how.condition.as_deref() == Some("service_completed_successfully"))
        .map(|(name, _)| name)
        .collect();
    let is_wanted = |name: &String, service: &ConfigService| {
        let replicas = service.deploy.as_ref().and_then(|d| d.replicas).or(service.scale);
        replicas != Some(0) && (wanted.is_empty() || wanted.contains(name))
    };
    let services: BTreeMap<String, Service> = config
        .services
        .iter()
        .filter(|(name, service)| is_wanted(name, service))
        .map(|(name, service)| {
            let image = service.image.clone().unwrap_or_else(|| format!("{}-{name}", config.name));
            (name.clone(), Service { image, is_one_shot: one_shots.contains(name) })
        })
        .collect();
    match wanted.iter().find(|name| !services.contains_key(*name)) {
        Some(missing) => Err(format!("the compose files name no service {missing:?}")),
        None if services.is_empty() => Err("the compose files name no service".to_owned()),
        None => Ok(Project { name: config.name, services }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"name":"app","services":{
        "migrate":{"image":"app:1"},
        "web":{"image":"app:1","depends_on":{"migrate":{"condition":"service_completed_successfully","required":true}},
               "environment":{"SECRET":"hunter2"}},
        "built":{"build":{"context":"."},"deploy":{"replicas":2}},
        "off":{"image":"x","deploy":{"replicas":0}}}}"#;

    fn project(wanted: &[&str]) -> Result<Project, String> {
        let wanted: Vec<String> = wanted.iter().map(|w| (*w).to_owned()).collect();
        of(serde_json::from_str(CONFIG).unwrap(), &wanted)
    }

    #[test]
    fn services_are_those_that_should_have_containers() {
        let all = project(&[]).unwrap();
        assert_eq!(all.services.keys().collect::<Vec<_>>(), ["built", "migrate", "web"]);
        assert!(all.services["migrate"].is_one_shot && !all.services["web"].is_one_shot);
        assert_eq!(all.services["built"].image, "app-built");
        assert_eq!(project(&["web"]).unwrap().services.len(), 1);
        assert!(project(&["web", "nope"]).unwrap_err().contains("nope"));
    }

    #[test]
    fn the_project_is_pinned() {
        let compose = Compose {
            files: vec!["a b.yml".into(), "c.yml".into()],
            env_files: vec![".env.prod".into()],
            project: Some("app".into()),
            services: Vec::new(),
        };
        let context = crate::bounded::tests::context(std::path::Path::new("/srv/app"));
        assert_eq!(
            arguments(&context, &compose),
            [
                "compose",
                "--ansi=never",
                "--project-directory=/srv/app",
                "--project-name=app",
                "--file=a b.yml",
                "--file=c.yml",
                "--env-file=.env.prod"
            ]
        );
        assert_eq!(
            by_hand(&compose, "ps -a"),
            "docker compose -p app -f 'a b.yml' -f c.yml --env-file .env.prod ps -a"
        );
    }
}
