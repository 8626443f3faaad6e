//! Whether a project's containers are well, and stay the same: looked at again and again.

use std::collections::BTreeMap;

use guard_model::deploy::Compose;

use super::{Container, Project, containers, mounts, project};
use crate::bounded::{Context, last_line};
use crate::child::End;

/// A project that is looked at from time to time.
#[derive(Debug)]
pub(crate) struct Watched {
    compose: Compose,
    project: Option<Project>,
    /// By container: the process that it was, and how often it had been restarted.
    before: Option<BTreeMap<String, (i32, u64)>>,
    /// Containers that were not well at the last look at which any was not.
    ill: Vec<(String, String)>,
    /// Looks since the compose files were read.
    looks: u32,
}

/// The compose files are read again after so many looks.
const READ_AGAIN: u32 = 20;

impl Watched {
    pub(crate) fn new(compose: &Compose) -> Self {
        Self { compose: compose.clone(), project: None, before: None, ill: Vec::new(), looks: 0 }
    }

    /// Is every service well, and is each container the one that it was at the last look?
    pub(crate) fn look(&mut self, context: &Context) -> (bool, String) {
        match self.faults_now(context) {
            Ok((faults, _)) if faults.is_empty() => {
                let services = self.project.as_ref().map_or(0, |p| p.services.len());
                (true, format!("{services} services are well"))
            }
            Ok((faults, _)) => (false, faults.join("; ")),
            Err(why) => (false, why),
        }
    }

    fn faults_now(&mut self, context: &Context) -> Result<(Vec<String>, Vec<Container>), String> {
        if self.looks.is_multiple_of(READ_AGAIN) {
            self.project = None;
        }
        let project = match self.project.take() {
            Some(project) => project,
            None => project(context, &self.compose)?,
        };
        self.looks = self.looks.wrapping_add(1);
        let project = self.project.insert(project);
        let found = containers(context, project)?;
        let mut faults = Vec::new();
        let mut ill = Vec::new();
        for (name, service) in &project.services {
            let own: Vec<&Container> = found.iter().filter(|c| c.service == *name).collect();
            if own.is_empty() {
                faults.push(format!("{name}: has no container"));
            }
            for container in own {
                let mut wrong = faults_of(container, service.is_one_shot);
                wrong.extend(self.before.as_ref().and_then(|before| change_of(container, before)));
                if container.is_running() {
                    wrong.extend(mounts::stale(context, container));
                }
                if !wrong.is_empty() {
                    ill.push((container.id.clone(), container.name.clone()));
                }
                faults.extend(wrong.into_iter().map(|w| format!("{name}: {w}")));
            }
        }
        if !ill.is_empty() {
            self.ill = ill;
        }
        let is_of_project = |c: &&Container| project.services.contains_key(&c.service);
        let now = found.iter().filter(is_of_project).map(|c| (c.id.clone(), (c.pid, c.restarts)));
        self.before = Some(now.collect());
        Ok((faults, found))
    }

    /// What the containers that were not well said last.
    pub(crate) fn last_words(&self, context: &Context) -> Option<String> {
        let mut words = Vec::new();
        for (id, name) in self.ill.iter().take(3) {
            let mut command = context.command("docker");
            command.args(["logs", "--tail", "10", id]);
            let Ok(done) = context.run(&mut command, super::ASKING) else { continue };
            if done.end != End::Exited(0) {
                continue;
            }
            let lines: Vec<String> = [done.out, done.err]
                .iter()
                .flat_map(|text| text.split(|&b| b == b'\n'))
                .filter_map(last_line)
                .collect();
            if !lines.is_empty() {
                words.push(format!("{name} said last:\n  {}", lines.join("\n  ")));
            }
        }
        (!words.is_empty()).then(|| words.join("\n"))
    }
}

/// What is wrong with a container by itself.
pub(crate) fn faults(container: &Container, is_one_shot: bool) -> Vec<String> {
    faults_of(container, is_one_shot)
}

fn faults_of(c: &Container, is_one_shot: bool) -> Vec<String> {
    match c.status.as_str() {
        "exited" if is_one_shot && c.exit_code == 0 => Vec::new(),
        "running" => match c.health.as_deref() {
            None | Some("healthy") => Vec::new(),
            Some(health) => vec![format!("{} is {health}", c.name)],
        },
        "restarting" => {
            vec![format!("{} is restarting, {} times so far (exit code {})", c.name, c.restarts, c.exit_code)]
        }
        "exited" | "dead" => vec![format!("{} has ended (exit code {})", c.name, c.exit_code)],
        other => vec![format!("{} is {other}", c.name)],
    }
}

/// Whether it is another one than at the last look.
fn change_of(c: &Container, before: &BTreeMap<String, (i32, u64)>) -> Option<String> {
    match before.get(&c.id) {
        None => Some(format!("{} is new: another one was there", c.name)),
        Some(&(_, restarts)) if c.restarts > restarts => {
            Some(format!("{} was restarted, {} times so far: a crash loop", c.name, c.restarts))
        }
        Some(&(pid, _)) if c.is_running() && pid != c.pid && c.restarts > 0 => {
            Some(format!("{} was started again, {} restarts so far: a crash loop", c.name, c.restarts))
        }
        Some(&(pid, _)) if c.is_running() && pid != c.pid => Some(format!("{} was started again", c.name)),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(status: &str, health: Option<&str>, exit_code: i64) -> Container {
        Container {
            id: "a".into(),
            name: "app-web-1".into(),
            service: "web".into(),
            image_id: String::new(),
            image: String::new(),
            status: status.into(),
            pid: 7,
            exit_code,
            restarts: 1,
            started_at: String::new(),
            health: health.map(str::to_owned),
            binds: Vec::new(),
            ports: Vec::new(),
        }
    }

    #[test]
    fn well_is_running_and_healthy_or_meant_to_end() {
        assert!(faults_of(&container("running", None, 0), false).is_empty());
        assert!(faults_of(&container("running", Some("healthy"), 0), false).is_empty());
        for health in ["starting", "unhealthy"] {
            assert!(!faults_of(&container("running", Some(health), 0), false).is_empty());
        }
        assert!(faults_of(&container("exited", None, 0), true).is_empty());
        assert!(
            !faults_of(&container("exited", None, 0), false).is_empty(),
            "a server that ended well ended"
        );
        for status in ["exited", "created", "paused", "restarting", "removing", "dead"] {
            assert!(!faults_of(&container(status, None, 1), true).is_empty(), "{status}");
        }
    }

    #[test]
    fn what_is_not_the_same_any_more_is_told() {
        let before = |pid, restarts| BTreeMap::from([("a".to_owned(), (pid, restarts))]);
        let now = container("running", None, 0);
        assert_eq!(change_of(&now, &before(7, 1)), None);
        assert!(change_of(&now, &before(7, 0)).unwrap().contains("crash loop"));
        assert!(change_of(&now, &before(6, 1)).unwrap().contains("crash loop"));
        let calm = Container { restarts: 0, ..now.clone() };
        assert!(change_of(&calm, &before(6, 0)).is_some_and(|c| c.ends_with("started again")));
        assert!(change_of(&now, &BTreeMap::new()).unwrap().contains("new"));
    }
}
