//! Images of running containers: which they are, and tags that keep them from `docker image prune`.

use std::io;

use guard_model::deploy::Compose;
use serde::{Deserialize, Serialize};

use super::{ask, containers, project};
use crate::bounded::Context;
use crate::worker::line::{Line, is_id, is_reference, is_service};

/// A reference and the image that it is to mean.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag {
    /// The reference, as `app:1`.
    pub image: String,
    /// `sha256:…`.
    pub id: String,
}

/// The images of the project's containers, one for each service and image.
///
/// # Errors
/// Why it could not be told.
pub(crate) fn images(context: &Context, compose: &Compose) -> Result<Vec<Line>, String> {
    let project = project(context, compose)?;
    let mut found: Vec<Line> = Vec::new();
    for c in containers(context, &project)? {
        // What it was made with; the configuration may say something else by now.
        let (service, image, id, container) = (c.service, c.image, c.image_id, c.id);
        let is_known = found
            .iter()
            .any(|l| matches!(l, Line::Image { service: s, id: i, .. } if *s == service && *i == id));
        if !is_known && is_service(&service) && is_reference(&image) && is_id(&id) {
            found.push(Line::Image { service, image, id, container, kept_as: None });
        }
    }
    Ok(found)
}

/// Gives each image a tag that begins so, and says what it is.
///
/// # Errors
/// Why it could not be done.
pub(crate) fn pin(context: &Context, compose: &Compose, prefix: &str) -> Result<Vec<Line>, String> {
    let mut found = images(context, compose)?;
    let mut before: Vec<String> = Vec::new();
    for line in &mut found {
        let Line::Image { service, id, kept_as, .. } = line else { continue };
        let mut tag = format!("{prefix}{}", service.to_lowercase());
        // Several images of one service, in the middle of an update by hand.
        while before.contains(&tag) {
            tag.push_str("-more");
        }
        ask(context, &["image", "tag", id.as_str(), tag.as_str()])?;
        before.push(tag.clone());
        *kept_as = Some(tag);
    }
    Ok(found)
}

/// Gives references back to the images that they meant.
pub(crate) fn repin(
    context: &Context,
    tags: &[Tag],
    tell: &mut dyn FnMut(Line) -> io::Result<()>,
) -> io::Result<()> {
    for tag in tags {
        // A reference by digest means one image for ever.
        if tag.image.contains('@') {
            continue;
        }
        let done = match is_reference(&tag.image) && is_id(&tag.id) {
            true => ask(context, &["image", "tag", &tag.id, &tag.image]).map(drop),
            false => Err("it is no reference, or no id of an image".to_owned()),
        };
        if let Err(why) = done {
            tell(Line::Failed { what: format!("give {} back to its image", tag.image), why })?;
        }
    }
    Ok(())
}

/// Removes the tags of a repository that do not begin with one of these.
pub(crate) fn unpin(
    context: &Context,
    repository: &str,
    keep: &[String],
    tell: &mut dyn FnMut(Line) -> io::Result<()>,
) -> io::Result<()> {
    let listed = ask(context, &["image", "ls", "--format={{.Repository}}:{{.Tag}}", repository]);
    let listed = match listed {
        Ok(listed) => String::from_utf8_lossy(&listed).into_owned(),
        Err(why) => return tell(Line::Failed { what: format!("list the images of {repository}"), why }),
    };
    for tag in listed.lines() {
        let Some(own) = tag.strip_prefix(repository).and_then(|rest| rest.strip_prefix(':')) else {
            continue;
        };
        if keep.iter().any(|k| own.starts_with(k.as_str())) {
            continue;
        }
        if let Err(why) = ask(context, &["image", "rm", "--no-prune", tag]) {
            tell(Line::Failed { what: format!("remove the tag {tag}"), why })?;
        }
    }
    Ok(())
}

/// The id that a reference means now.
///
/// # Errors
/// Why it could not be told.
pub(crate) fn resolve(context: &Context, reference: &str) -> Result<String, String> {
    if !is_reference(reference) {
        return Err("it is no reference of an image".to_owned());
    }
    let id = ask(context, &["image", "inspect", "--format={{.Id}}", reference])?;
    Ok(String::from_utf8_lossy(&id).trim().to_owned())
}
