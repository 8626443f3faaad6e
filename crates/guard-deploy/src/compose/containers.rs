//! A project's containers, as docker describes them.

use serde::Deserialize;

use super::{Project, ask};
use crate::bounded::Context;

/// A container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) service: String,
    /// The id of the image that it runs.
    pub(crate) image_id: String,
    /// The reference that it was made with.
    pub(crate) image: String,
    pub(crate) status: String,
    pub(crate) pid: i32,
    pub(crate) exit_code: i64,
    pub(crate) restarts: u64,
    /// RFC 3339.
    pub(crate) started_at: String,
    /// `None` where it has no health check.
    pub(crate) health: Option<String>,
    pub(crate) binds: Vec<Bind>,
    /// Ports of the machine that lead to it.
    pub(crate) ports: Vec<(u16, Udp)>,
}

/// Is a port UDP's?
pub(crate) type Udp = bool;

/// Something of the machine's that a container sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bind {
    pub(crate) source: String,
    pub(crate) destination: String,
}

impl Container {
    pub(crate) fn is_running(&self) -> bool {
        self.status == "running"
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    name: String,
    image: String,
    #[serde(default)]
    restart_count: u64,
    state: State,
    config: Config,
    #[serde(default)]
    mounts: Vec<Mount>,
    #[serde(default)]
    network_settings: Network,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    status: String,
    #[serde(default)]
    pid: i32,
    #[serde(default)]
    exit_code: i64,
    #[serde(default)]
    started_at: String,
    health: Option<Health>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Health {
    status: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default)]
    image: String,
    labels: Option<std::collections::BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Mount {
    #[serde(default, rename = "Type")]
    kind: String,
    #[serde(default)]
    source: String,
    #[serde(default)]
    destination: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Network {
    ports: Option<std::collections::BTreeMap<String, Option<Vec<Published>>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Published {
    #[serde(default)]
    host_port: String,
}

/// All containers of the project, running or not, without those of `docker compose run`.
///
/// # Errors
/// Why it could not be told.
pub(crate) fn containers(context: &Context, project: &Project) -> Result<Vec<Container>, String> {
    find(context, &project.name)
}

/// The same by the project's name alone.
///
/// # Errors
/// Why it could not be told.
pub(crate) fn find(context: &Context, project: &str) -> Result<Vec<Container>, String> {
    let label = format!("--filter=label=com.docker.compose.project={project}");
    let listed = ask(context, &["ps", "--all", "--quiet", "--no-trunc", &label])?;
    let ids = String::from_utf8_lossy(&listed).lines().map(str::to_owned).collect::<Vec<_>>();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut all = vec!["inspect".to_owned(), "--type=container".to_owned()];
    all.extend(ids);
    let text = match ask(context, &all) {
        Ok(text) => text,
        // One went away between the two questions.
        Err(why) if why.contains("No such container") => {
            return Err("a container was just removed".to_owned());
        }
        Err(why) => return Err(why),
    };
    read(&text)
}

fn read(text: &[u8]) -> Result<Vec<Container>, String> {
    let all: Vec<Inspected> = serde_json::from_slice(text)
        // The parser's words could repeat a value.
        .map_err(|e| format!("docker inspect answered what cannot be read (line {})", e.line()))?;
    let mut found: Vec<Container> = all.into_iter().filter_map(container).collect();
    found.sort_by(|a, b| (&a.service, &a.name).cmp(&(&b.service, &b.name)));
    Ok(found)
}

fn container(found: Inspected) -> Option<Container> {
    let labels = found.config.labels.unwrap_or_default();
    if labels.get("com.docker.compose.oneoff").is_some_and(|v| v == "True") {
        return None;
    }
    let service = labels.get("com.docker.compose.service")?.clone();
    let ports = found.network_settings.ports.unwrap_or_default();
    let ports = ports.into_iter().flat_map(|(inside, published)| {
        let is_udp = inside.ends_with("/udp");
        let number = |p: Published| Some((p.host_port.parse().ok()?, is_udp));
        published.unwrap_or_default().into_iter().filter_map(number).collect::<Vec<_>>()
    });
    Some(Container {
        id: found.id,
        name: found.name.trim_start_matches('/').to_owned(),
        service,
        image_id: found.image,
        image: found.config.image,
        status: found.state.status,
        pid: found.state.pid,
        exit_code: found.state.exit_code,
        restarts: found.restart_count,
        started_at: found.state.started_at,
        health: found.state.health.map(|h| h.status).filter(|h| h != "none"),
        binds: found
            .mounts
            .into_iter()
            .filter(|m| m.kind == "bind")
            .map(|m| Bind { source: m.source, destination: m.destination })
            .collect(),
        ports: ports.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_inspect_is_read() {
        let text = br#"[{"Id":"0a","Name":"/app-web-1","Image":"sha256:11","RestartCount":2,
            "State":{"Status":"running","Pid":77,"ExitCode":0,"StartedAt":"2026-01-01T00:00:00.1Z",
                     "Health":{"Status":"healthy","FailingStreak":0,"Log":[]}},
            "Config":{"Image":"app:1","Env":["K=v"],"Labels":{"com.docker.compose.service":"web",
                     "com.docker.compose.oneoff":"False"}},
            "Mounts":[{"Type":"bind","Source":"/srv/app/nginx.conf","Destination":"/etc/nginx.conf"},
                      {"Type":"volume","Name":"x","Source":"/var/lib/docker/volumes/x","Destination":"/x"}],
            "NetworkSettings":{"Ports":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"}],"81/tcp":null}}},
           {"Id":"0b","Name":"/run","Image":"sha256:11","State":{"Status":"exited"},
            "Config":{"Labels":{"com.docker.compose.service":"web","com.docker.compose.oneoff":"True"}}},
           {"Id":"0c","Name":"/other","Image":"sha256:11","State":{"Status":"exited"},"Config":{"Labels":null}}]"#;
        let found = read(text).unwrap();
        assert_eq!(found.len(), 1);
        let web = &found[0];
        assert_eq!((web.name.as_str(), web.restarts, web.pid), ("app-web-1", 2, 77));
        assert_eq!(web.health.as_deref(), Some("healthy"));
        assert_eq!(web.binds.len(), 1);
        assert_eq!(web.ports, [(8080, false)]);
        assert!(read(b"[{\"Config\":{\"Env\":[\"hunter2\"]}}]").is_err_and(|e| !e.contains("hunter2")));
    }
}
