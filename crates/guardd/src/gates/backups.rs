//! Backups: there is one, it is recent, whole and proven, and there is room for the next.

use std::time::Duration;

use guard_api::Known;
use guard_model::deploy::{Gate, Validation, Verdict};
use guard_model::retention::Proof;
use guard_store::backup::Backups;

use super::{Subject, gate};
use crate::operations::now;
use crate::warden::BackupView;

/// The next backup takes as much as everything at worst; as much again stays free.
const TIMES: u64 = 2;

pub(super) fn all(subject: &Subject, view: Result<BackupView, Known>) -> Vec<Gate> {
    let by_hand = format!("guardctl backup list {}", subject.ward.name);
    match view {
        Ok(view) => vec![newest(subject, &view.vault.backups, by_hand), room(subject, &view.vault.backups)],
        Err(known) => {
            let why = super::told(&known);
            vec![
                gate("backup", "", Verdict::Unknown, why.clone(), by_hand),
                gate("disk", "", Verdict::Unknown, why, "df -h".to_owned()),
            ]
        }
    }
}

fn newest(subject: &Subject, backups: &Backups, by_hand: String) -> Gate {
    let says = |verdict, evidence| gate("backup", "", verdict, evidence, by_hand.clone());
    let longest =
        subject.config.validation.as_ref().map_or(Validation::default().backup_max_age, |v| v.backup_max_age);
    let Some(newest) = &subject.state.backups.newest else {
        return match subject.state.baseline {
            // A deployment makes its own before it changes anything.
            None => says(Verdict::Pass, "never locked, and never backed up".to_owned()),
            Some(_) => says(Verdict::Fail, "there is none".to_owned()),
        };
    };
    let id = &newest.id;
    let age = u64::try_from(now().0.saturating_sub(newest.at.0)).map(Duration::from_micros);
    let Ok(age) = age else {
        return says(Verdict::Fail, format!("{id} was made in the future, by this machine's clock"));
    };
    if age > longest {
        let (age, longest) = (days(age), days(longest));
        return says(Verdict::Fail, format!("the newest, {id}, is {age} old, and at most {longest} counts"));
    }
    if newest.missing > 0 {
        return says(Verdict::Fail, format!("{id} lacks the content of {} files", newest.missing));
    }
    match backups.proof(id) {
        Ok(Proof::Verified) => {
            says(Verdict::Pass, format!("{id} is {} old, and every byte was read back", days(age)))
        }
        Ok(Proof::Unverified) => {
            says(Verdict::Fail, format!("{id} was touched since it was read back: guardctl backup verify"))
        }
        Ok(Proof::Damaged) => {
            let why = backups.problem(id).map(|p| format!(": {p}")).unwrap_or_default();
            says(Verdict::Fail, format!("{id} is damaged{why}"))
        }
        Err(e) => says(Verdict::Unknown, format!("{id} cannot be looked at: {}", e.with_causes())),
    }
}

fn days(age: Duration) -> String {
    let (number, unit) = match age.as_secs() {
        s @ 0..60 => (s, "second"),
        s @ 60..7_200 => (s / 60, "minute"),
        s @ 7_200..172_800 => (s / 3_600, "hour"),
        s => (s / 86_400, "day"),
    };
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}

fn room(subject: &Subject, backups: &Backups) -> Gate {
    let path = backups.path();
    let by_hand = format!("df -h {}", path.display());
    let says = |verdict, evidence| gate("disk", "", verdict, evidence, by_hand.clone());
    let free = match guard_sys::space::free(path) {
        Ok(free) => free,
        Err(e) => return says(Verdict::Unknown, format!("its file system cannot be asked: {e}")),
    };
    let Some(baseline) = &subject.state.baseline else {
        let evidence =
            format!("{} are free; never locked, so how much is needed shows when it is backed up", mib(free));
        return says(Verdict::Pass, evidence);
    };
    let needed = baseline.totals.bytes.saturating_mul(TIMES);
    let told = format!("{} are free for backups, {} may be needed", mib(free), mib(needed));
    says(if free >= needed { Verdict::Pass } else { Verdict::Fail }, told)
}

fn mib(bytes: u64) -> String {
    match bytes {
        b if b < 10 << 20 => format!("{} KiB", b.div_ceil(1 << 10)),
        b if b < 10 << 30 => format!("{} MiB", b >> 20),
        b => format!("{} GiB", b >> 30),
    }
}
