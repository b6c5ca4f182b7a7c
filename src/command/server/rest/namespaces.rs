//! Namespaces: list, create, rename, remove; and statistics of the store.

use std::sync::{MutexGuard, PoisonError};

use embercask::Namespace;
use serde::{Deserialize, Serialize};

use super::RequestContext;
use super::envelope::{success, success_with, success_with_messages};
use crate::common::objects::{MemberNames, Object};
use crate::common::reserved::{is_reserved, is_reserved_name};
use crate::common::statistics;
use crate::server::blocking::blocking;
use crate::server::body::{SMALL_BYTES_MAX, Unread, Work};
use crate::server::error::ApiError;
use crate::server::parse::ignored::Ignored;
use crate::server::replica::report;
use crate::server::response::ApiResponse;
use crate::server::shared::Shared;

/// Namespaces per page.
const PAGE_DEFAULT: usize = 20;
const PAGE_MAX: usize = 1000;
/// Longest title, in characters.
const TITLE_CHARACTERS_MAX: usize = 512;

#[derive(Serialize)]
struct Shown {
    id: String,
    title: String,
    supports_url_encoding: bool,
}

impl Shown {
    fn new(id: u128, title: String) -> Shown {
        Shown {
            id: format!("{id:032x}"),
            title,
            supports_url_encoding: true,
        }
    }
}

fn shown(namespace: &Namespace) -> Shown {
    Shown::new(namespace.id(), namespace.name())
}

#[derive(Deserialize)]
struct Titled {
    title: Option<String>,
}

/// What the client asked for and does not get, such as a `jurisdiction`.
fn not_kept(members: &MemberNames) -> Vec<String> {
    let mut ignored = Ignored::default();
    members
        .0
        .iter()
        .filter(|name| *name != "title")
        .for_each(|name| ignored.add(name));
    let tell = |name: &str| format!("the property \"{name}\" is not kept: a namespace has only a title");
    ignored.messages(tell, "properties are not kept")
}

/// The title in a body, and messages about what else is in it.
fn title(body: Option<Vec<u8>>) -> Result<(String, Vec<String>), ApiError> {
    let missing = || ApiError::new(400, 10019, "request is missing a title definition");
    let body = body.ok_or_else(missing)?;
    let Object::<Titled>(titled) =
        serde_json::from_slice(&body).map_err(|_| ApiError::new(400, 10012, "the request body could not be parsed"))?;
    let title = titled.title.filter(|title| !title.is_empty()).ok_or_else(missing)?;
    if title.chars().count() > TITLE_CHARACTERS_MAX {
        let message = format!("the title has more than {TITLE_CHARACTERS_MAX} characters");
        return Err(ApiError::new(400, 10019, message));
    }
    if is_reserved_name(&title) {
        return Err(ApiError::name_taken());
    }
    let members: MemberNames = serde_json::from_slice(&body).unwrap_or_default();
    Ok((title, not_kept(&members)))
}

/// Locks the names of namespaces against other changes.
fn names(shared: &Shared) -> MutexGuard<'_, ()> {
    shared.names.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The current name of a namespace; an error if it is gone.
fn name_of(namespace: &Namespace) -> Result<String, ApiError> {
    let found = namespace.store().namespace_by_id(namespace.id())?;
    let found = found.ok_or_else(|| ApiError::new(404, 10013, "namespace not found"))?;
    Ok(found.name())
}

impl RequestContext<'_> {
    pub(super) async fn statistics(&self) -> Result<ApiResponse, ApiError> {
        let shared = self.shared.clone();
        let numbers = blocking(move || {
            let mut numbers = statistics::without_paths(&shared.store);
            if let (Some(fields), Some(_)) = (numbers.as_object_mut(), &shared.replica) {
                fields.insert("replica".to_owned(), report::status(&shared)?);
            }
            Ok(numbers)
        });
        Ok(success(&numbers.await?))
    }

    pub(super) async fn list_namespaces(&self) -> Result<ApiResponse, ApiError> {
        let page = self.page("page", 1)?;
        let per_page = self.page("per_page", PAGE_DEFAULT)?.min(PAGE_MAX);
        let by_title = self.parameter("order")?.is_some_and(|order| order == "title");
        let is_descending = self
            .parameter("direction")?
            .is_some_and(|direction| direction == "desc");
        let mut all = self.shared.store.namespaces()?;
        all.retain(|info| !is_reserved(info.id) && self.access.covers(&info.name, info.id));
        if by_title {
            all.sort_by(|a, b| a.name.cmp(&b.name));
        } else {
            all.sort_by_key(|info| info.id);
        }
        if is_descending {
            all.reverse();
        }
        let total = all.len();
        let from = (page - 1).saturating_mul(per_page);
        let shown: Vec<Shown> = all
            .into_iter()
            .skip(from)
            .take(per_page)
            .map(|info| Shown::new(info.id, info.name))
            .collect();
        let info = serde_json::json!({
            "page": page,
            "per_page": per_page,
            "count": shown.len(),
            "total_count": total,
            "total_pages": total.div_ceil(per_page),
        });
        Ok(success_with(&shown, info))
    }

    pub(super) async fn create_namespace(&self, unread: &mut Unread<'_>) -> Result<ApiResponse, ApiError> {
        const OPERATION: &str = "create namespace";
        let mut body = unread.read(&self.holder, SMALL_BYTES_MAX, Work::Small).await?;
        let (title, messages) = title(body.take_whole())?;
        let created = self.created(title).await.map_err(|error| error.of(OPERATION))?;
        Ok(success_with_messages(&created, &messages))
    }

    async fn created(&self, title: String) -> Result<Shown, ApiError> {
        if let Some(replica) = &self.shared.replica {
            return Ok(Shown::new(replica.create_namespace(&title).await?, title));
        }
        let shared = self.shared.clone();
        blocking(move || {
            let _names = names(&shared);
            let created = shared.store.create_namespace(&title)?;
            shared.namespace_limits.apply(&created);
            Ok(shown(&created))
        })
        .await
    }

    pub(super) async fn get_namespace(&self) -> Result<ApiResponse, ApiError> {
        Ok(success(&shown(&self.namespace("get namespace")?)))
    }

    pub(super) async fn rename_namespace(&self, unread: &mut Unread<'_>) -> Result<ApiResponse, ApiError> {
        const OPERATION: &str = "rename namespace";
        let namespace = self.namespace(OPERATION)?;
        let mut body = unread.read(&self.holder, SMALL_BYTES_MAX, Work::Small).await?;
        let (title, messages) = title(body.take_whole())?;
        let done = self.renamed(namespace.clone(), title).await;
        done.map_err(|error| error.of(OPERATION))?;
        Ok(success_with_messages(&shown(&namespace), &messages))
    }

    async fn renamed(&self, renamed: Namespace, title: String) -> Result<(), ApiError> {
        if let Some(replica) = &self.shared.replica {
            return replica.rename_namespace(renamed.id(), &title).await;
        }
        let shared = self.shared.clone();
        blocking(move || {
            let _names = names(&shared);
            let name = name_of(&renamed)?;
            if name != title {
                renamed.store().rename_namespace(&name, &title)?;
                shared.namespace_limits.apply(&renamed);
            }
            Ok(())
        })
        .await
    }

    pub(super) async fn remove_namespace(&self) -> Result<ApiResponse, ApiError> {
        const OPERATION: &str = "remove namespace";
        let namespace = self.namespace(OPERATION)?;
        self.removed(namespace).await.map_err(|error| error.of(OPERATION))?;
        Ok(success(&()))
    }

    async fn removed(&self, namespace: Namespace) -> Result<(), ApiError> {
        if let Some(replica) = &self.shared.replica {
            return replica.drop_namespace(namespace.id()).await;
        }
        let shared = self.shared.clone();
        blocking(move || {
            let _names = names(&shared);
            Ok(shared.store.drop_namespace(&name_of(&namespace)?)?)
        })
        .await
    }
}
