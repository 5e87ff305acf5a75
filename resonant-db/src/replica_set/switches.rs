//! Switches for an incident: what a person decides goes before what the routing thinks.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::{Error, ErrorKind, Result};

use super::node::Node;
use super::shared::{Shared, View};

/// Takes a node out of the reads, or back in.
pub(super) fn hold<P>(shared: &Shared<P>, name: &str, held: bool) -> Result<()> {
    // One at a time, so that two callers cannot hold the last two nodes.
    let _authority = shared.authority();
    let view = shared.view();
    let node = find(&view, name, if held { "eject" } else { "restore" })?;
    let others = view.nodes.iter().filter(|other| other.id != node.id && !other.is_held()).count();
    if held && others == 0 {
        let message = format!("{name} is the last node in rotation; restore another one first");
        return Err(Error::new(ErrorKind::Config, "eject", message));
    }
    if node.held.swap(held, Ordering::AcqRel) != held {
        let what = if held { "taken out of" } else { "put back into" };
        tracing::warn!(database = %shared.name, node = %node.name, "the node was {what} rotation by hand");
    }
    Ok(())
}

/// Makes a node the primary, whatever it says of itself; `None` lets the routing decide again.
pub(super) fn force<P>(shared: &Shared<P>, name: Option<&str>) -> Result<()> {
    let mut authority = shared.authority();
    let view = shared.view();
    let forced = match name {
        Some(name) => Some(find(&view, name, "force_primary")?.id),
        None => None,
    };
    if authority.forced != forced {
        tracing::warn!(database = %shared.name, node = name.unwrap_or("none"), "the primary was forced by hand");
    }
    authority.forced = forced;
    if forced.is_some() {
        // Whoever overrules the fence wants the history of that node.
        authority.fence = None;
    }
    let change = shared.settle(&mut authority);
    drop(authority);
    shared.announce(change);
    shared.kick();
    Ok(())
}

fn find<'a, P>(view: &'a View<P>, name: &str, operation: &'static str) -> Result<&'a Arc<Node<P>>> {
    let wanted = |node: &&Arc<Node<P>>| *node.name == *name || *node.url == *name;
    view.nodes.iter().find(wanted).ok_or_else(|| {
        let names: Vec<_> = view.nodes.iter().map(|node| &*node.name).collect();
        // The name may be a URL with a password in it.
        let message = format!("there is no node of this name; there are {}", names.join(", "));
        Error::new(ErrorKind::Config, operation, message)
    })
}
