//! The routes of the REST API: method, path, required right and handler.
//!
//! An unknown path is answered with 404, an unknown method of a known path with 405.

use std::future::Future;
use std::pin::Pin;

use hyper::Method;

use super::{RequestContext, admin, replica};
use crate::server::access::Access;
use crate::server::body::Unread;
use crate::server::error::ApiError;
use crate::server::parse::head::routed_method;
use crate::server::response::ApiResponse;
use Right::{Admin, Read, ReadAll, Write, WriteAll};

/// A path of namespaces, or below.
macro_rules! kv {
    ($rest:literal) => {
        concat!("accounts/{account}/storage/kv/namespaces", $rest)
    };
}

/// A handler that calls this function, with or without the request's body. One that takes the body
/// checks everything else before it reads it.
macro_rules! call {
    ($function:ident) => {
        |context, _| Box::pin(context.$function())
    };
    ($function:ident, body) => {
        |context, body| Box::pin(context.$function(body))
    };
}
pub(super) use call;

/// Method, path after [`BASE`], name in the metrics, right, handler.
#[rustfmt::skip]
static ROUTES: &[Route] = &[
    route(GET,    "user",                         "account",          Read,     call!(user)),
    route(GET,    "user/tokens/verify",           "account",          Read,     call!(verify_token)),
    route(GET,    "accounts",                     "account",          Read,     call!(accounts)),
    route(GET,    "memberships",                  "account",          Read,     call!(memberships)),
    route(GET,    "embercask/statistics",         "statistics",       ReadAll,  call!(statistics)),
    route(GET,    kv!(""),                        "list_namespaces",  Read,     call!(list_namespaces)),
    route(POST,   kv!(""),                        "create_namespace", WriteAll, call!(create_namespace, body)),
    route(GET,    kv!("/{id}"),                   "get_namespace",    Read,     call!(get_namespace)),
    route(PUT,    kv!("/{id}"),                   "rename_namespace", WriteAll, call!(rename_namespace, body)),
    route(DELETE, kv!("/{id}"),                   "remove_namespace", WriteAll, call!(remove_namespace)),
    route(GET,    kv!("/{id}/statistics"),        "namespace_stats",  Read,     call!(namespace_statistics)),
    route(GET,    kv!("/{id}/count"),             "count",            Read,     call!(count_keys)),
    route(GET,    kv!("/{id}/default_ttl"),       "default_ttl",      Read,     call!(default_ttl)),
    route(PUT,    kv!("/{id}/default_ttl"),       "default_ttl",      Write,    call!(set_default_ttl, body)),
    route(DELETE, kv!("/{id}/default_ttl"),       "default_ttl",      Write,    call!(remove_default_ttl)),
    route(GET,    kv!("/{id}/keys"),              "list",             Read,     call!(list_keys)),
    route(GET,    kv!("/{id}/values/{key}"),      "get",              Read,     call!(get)),
    route(PUT,    kv!("/{id}/values/{key}"),      "put",              Write,    call!(put, body)),
    route(DELETE, kv!("/{id}/values/{key}"),      "delete",           Write,    call!(delete)),
    route(GET,    kv!("/{id}/metadata/{key}"),    "metadata",         Read,     call!(metadata)),
    route(PUT,    kv!("/{id}/bulk"),              "bulk_put",         Write,    call!(bulk_put, body)),
    route(DELETE, kv!("/{id}/bulk"),              "bulk_delete",      Write,    call!(bulk_delete, body)),
    route(POST,   kv!("/{id}/bulk/delete"),       "bulk_delete",      Write,    call!(bulk_delete, body)),
    route(POST,   kv!("/{id}/bulk/get"),          "bulk_get",         Read,     call!(bulk_get, body)),
];

const GET: Method = Method::GET;
const PUT: Method = Method::PUT;
const POST: Method = Method::POST;
const DELETE: Method = Method::DELETE;

/// The prefix of the paths of Workers KV.
const BASE: &str = "/client/v4/";

/// The tables of routes, each with the prefix of its paths.
static TABLES: [(&str, &[Route]); 3] = [
    (BASE, ROUTES),
    (admin::BASE, admin::ROUTES),
    (replica::BASE, replica::ROUTES),
];

/// A row of the table.
pub(super) struct Route {
    method: Method,
    /// Segments of the path. A name in braces matches any one segment.
    path: &'static str,
    /// Its name in the metrics.
    pub(super) name: &'static str,
    pub(super) right: Right,
    pub(super) handler: Handler,
}

type Handler = for<'a> fn(&'a RequestContext<'a>, &'a mut Unread<'_>) -> Responding<'a>;

type Responding<'a> = Pin<Box<dyn Future<Output = Result<ApiResponse, ApiError>> + Send + 'a>>;

pub(super) const fn route(
    method: Method,
    path: &'static str,
    name: &'static str,
    right: Right,
    handler: Handler,
) -> Route {
    Route {
        method,
        path,
        name,
        right,
        handler,
    }
}

/// The right that a client needs. Access to the namespace in the path is checked where it is looked
/// up.
#[derive(Clone, Copy, Debug)]
pub(super) enum Right {
    Read,
    Write,
    /// To read data about all namespaces.
    ReadAll,
    /// To change the list of namespaces.
    WriteAll,
    /// To administer the server.
    Admin,
}

impl Right {
    pub(super) fn check(self, access: &Access) -> Result<(), ApiError> {
        if matches!(self, Write | WriteAll) {
            access.check_write()?;
        }
        if matches!(self, ReadAll | WriteAll) {
            access.check_all()?;
        }
        if matches!(self, Admin) {
            access.check_admin()?;
        }
        Ok(())
    }
}

/// The segments of a path that match names in braces, not decoded: an escaped `/` in a key does not
/// separate segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Parameters<'a> {
    pub(super) id: &'a str,
    pub(super) key: &'a str,
}

impl Route {
    /// None if the path does not match.
    fn parameters<'a>(&self, path: &'a str) -> Option<Parameters<'a>> {
        let mut parameters = Parameters::default();
        let (mut pattern, mut segments) = (self.path.split('/'), path.split('/'));
        loop {
            match (pattern.next(), segments.next()) {
                (None, None) => return Some(parameters),
                (Some("{account}"), Some(_)) => {}
                (Some("{id}"), Some(id)) => parameters.id = id,
                (Some("{key}"), Some(key)) => parameters.key = key,
                (Some(name), Some(segment)) if name == segment => {}
                _ => return None,
            }
        }
    }
}

/// The route of a request, by method and raw path.
pub(super) fn find<'a>(method: &Method, path: &'a str) -> Result<(&'static Route, Parameters<'a>), ApiError> {
    let method = routed_method(method);
    let mut methods = Vec::new();
    for (base, routes) in &TABLES {
        let Some(path) = path.strip_prefix(base) else {
            continue;
        };
        for route in *routes {
            let Some(parameters) = route.parameters(path) else {
                continue;
            };
            if route.method == method {
                return Ok((route, parameters));
            }
            methods.push(route.method.as_str());
        }
    }
    Err(if methods.is_empty() {
        ApiError::new(
            404,
            7003,
            "Could not route to this path, perhaps your object identifier is invalid?",
        )
    } else {
        ApiError::method_not_allowed("Method not allowed for this path", &methods)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: Method, path: &str) -> Result<(&'static str, Parameters<'_>), u16> {
        let found = find(&method, path);
        found
            .map(|(route, parameters)| (route.name, parameters))
            .map_err(|error| error.status)
    }

    /// All routes, each with the prefix of its path.
    fn rows() -> impl Iterator<Item = (&'static str, &'static Route)> {
        TABLES
            .iter()
            .flat_map(|(base, routes)| routes.iter().map(move |route| (*base, route)))
    }

    #[test]
    fn a_path_leads_to_one_route_a_method() {
        for (base, route) in rows() {
            let path = format!("{base}{}", route.path);
            let (other, parameters) = find(&route.method, &path).unwrap();
            assert!(std::ptr::eq(route, other), "{} {path} is in two rows", route.method);
            assert_eq!(parameters.id, if path.contains("{id}") { "{id}" } else { "" });
            assert_eq!(parameters.key, if path.contains("{key}") { "{key}" } else { "" });
        }
    }

    #[test]
    fn the_documentation_has_each_route_once_and_no_other() {
        let page = include_str!("../../../../docs/self-hosting-workers-kv.md");
        let quoted = page.split('`').skip(1).step_by(2);
        let requests = quoted.filter_map(|quoted| {
            let (method, target) = quoted.split_once(' ')?;
            let path = target.split('?').next()?;
            let begins = [
                "/admin/",
                "/replica/",
                "namespaces",
                "user",
                "accounts",
                "memberships",
                "embercask/",
            ];
            let is_route = begins.iter().any(|begin| path.starts_with(begin));
            let is_method = ["GET", "PUT", "POST", "DELETE"].contains(&method);
            (is_method && is_route).then(|| format!("{method} {path}"))
        });
        let mut documented: Vec<String> = requests.collect();
        let mut routes: Vec<String> = rows()
            .map(|(base, route)| {
                let path = route.path.replace(kv!(""), "namespaces");
                let path = path.replace("{id}", "ID").replace("{key}", "KEY");
                format!("{} {}{path}", route.method, if base == BASE { "" } else { base })
            })
            .collect();
        documented.sort();
        routes.sort();
        assert_eq!(documented, routes);
    }

    #[test]
    fn what_no_row_has_is_404_and_a_method_that_no_row_of_a_path_has_405() {
        let namespaces = "/client/v4/accounts/a/storage/kv/namespaces";
        let key = format!("{namespaces}/i/values/a%2Fb");
        let parameters = Parameters { id: "i", key: "a%2Fb" };
        assert_eq!(found(Method::GET, &key), Ok(("get", parameters)));
        assert_eq!(found(Method::PUT, &key), Ok(("put", parameters)));
        assert_eq!(found(Method::PATCH, &key), Err(405));
        assert_eq!(found(Method::POST, &key), Err(405));
        assert_eq!(found(Method::GET, &format!("{namespaces}/i/bulk/get")), Err(405));
        // An empty segment is a segment.
        assert_eq!(
            found(Method::GET, &format!("{namespaces}/")),
            Ok(("get_namespace", Parameters::default()))
        );
        for unknown in [
            "/client/v4",
            "/client/v4/",
            "/client/v4/users",
            "/client/v4/user/",
            "/user",
            "/admin",
            "/admin/",
            "/replica",
            "/client/v4/admin/compact",
            "/",
        ] {
            assert_eq!(found(Method::GET, unknown), Err(404), "{unknown}");
        }
        assert_eq!(found(Method::GET, &format!("{key}/c")), Err(404));
        assert_eq!(found(Method::GET, &format!("{namespaces}/i/values")), Err(404));
    }
}
