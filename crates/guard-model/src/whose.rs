//! Whose change it is that was made while a deployment ran.

use crate::finding::{Actor, Confidence};

/// Whose change it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// One of the deployment's own processes made it.
    Own,
    /// Nobody is known to have made it, or a container engine did on somebody's behalf.
    Assumed,
    /// Somebody else made it, and it is known who.
    Outsider,
}

/// What tells a deployment's own processes from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marks {
    /// How the names of the units of its steps begin.
    pub unit_prefix: String,
    /// guardd itself, of which steps are descendants where they are no units.
    pub daemon_pid: i32,
    /// The user that steps run as, where they are no units: what has lost its parents is not told from others of his.
    pub step_uid: Option<u32>,
}

/// Units that write into a tree because somebody asked them to.
const ENGINES: [&str; 4] = ["docker.service", "containerd.service", "podman.service", "buildkit.service"];

impl Marks {
    /// Whose change it is. Only who is known for certain is an outsider.
    #[must_use]
    pub fn whose(&self, actor: Option<&Actor>) -> Whose {
        let Some(actor) = actor else { return Whose::Assumed };
        let unit = actor.unit.as_deref();
        let daemon = format!("({})", self.daemon_pid);
        let is_daemon = actor.pid == self.daemon_pid || actor.parents.iter().any(|p| p.ends_with(&daemon));
        if is_daemon || unit.is_some_and(|unit| unit.starts_with(&self.unit_prefix)) {
            return Whose::Own;
        }
        let is_engine = actor.container.is_some() || unit.is_some_and(|unit| ENGINES.contains(&unit));
        let is_known = actor.confidence != Confidence::Unknown
            && actor.exe.is_some()
            && (unit.is_some() || !actor.parents.is_empty());
        let may_be_own = self.step_uid.is_some() && self.step_uid == actor.uid && actor.parents.len() <= 1;
        if is_engine || !is_known || may_be_own { Whose::Assumed } else { Whose::Outsider }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actor() -> Actor {
        Actor {
            pid: 4711,
            comm: Some("vim".into()),
            exe: Some("/usr/bin/vim".into()),
            cmdline: None,
            uid: Some(0),
            login_uid: None,
            started_at: None,
            parents: vec!["bash (4000)".into(), "sshd (900)".into()],
            unit: Some("session-3.scope".into()),
            container: None,
            confidence: Confidence::Verified,
        }
    }

    #[test]
    fn only_who_is_known_for_certain_is_an_outsider() {
        let marks = Marks { unit_prefix: "guardd-deploy-site-7-".into(), daemon_pid: 77, step_uid: None };
        assert_eq!(marks.whose(Some(&actor())), Whose::Outsider);
        assert_eq!(marks.whose(None), Whose::Assumed);
        let unit = |unit: &str| Actor { unit: Some(unit.into()), ..actor() };
        assert_eq!(marks.whose(Some(&unit("guardd-deploy-site-7-fetch.service"))), Whose::Own);
        assert_eq!(marks.whose(Some(&unit("guardd-deploy-site-70-fetch.service"))), Whose::Outsider);
        assert_eq!(marks.whose(Some(&unit("docker.service"))), Whose::Assumed);
        let in_container = Actor { container: Some("abc".into()), ..actor() };
        assert_eq!(marks.whose(Some(&in_container)), Whose::Assumed);
        let gone =
            Actor { exe: None, unit: None, parents: vec![], confidence: Confidence::Exited, ..actor() };
        assert_eq!(marks.whose(Some(&gone)), Whose::Assumed);
        let child = Actor { parents: vec!["sh (80)".into(), "guardd (77)".into()], ..actor() };
        assert_eq!(marks.whose(Some(&child)), Whose::Own);
    }

    #[test]
    fn a_step_that_lost_its_parents_is_no_outsider() {
        let marks = Marks { unit_prefix: "guardd-deploy-site-7-".into(), daemon_pid: 77, step_uid: Some(0) };
        let orphan = Actor { parents: vec!["systemd (1)".into()], ..actor() };
        assert_eq!(marks.whose(Some(&orphan)), Whose::Assumed);
        assert_eq!(marks.whose(Some(&actor())), Whose::Outsider);
    }
}
