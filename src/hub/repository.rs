//! What the hub says of a repository, and what its refusals mean.

use super::error::{Fault, HubError};
use super::http::{Answer, Client, Method, body, header, host, quote};
use super::id::HubId;
use super::plan::{INDEX, Parts};
use super::{Watch, cache};
use models::{ModelIndex, is_inside};
use std::collections::BTreeSet;
use ureq::http::HeaderMap;

/// The longest listing that is read: a repository's is far shorter, and a hostile server's could be endless.
const LARGEST_LISTING: u64 = 64 << 20;

/// A repository at one commit.
#[derive(Debug)]
pub(super) struct Repository<'a> {
    id: &'a HubId,
    pub(super) commit: String,
    files: BTreeSet<String>,
}

/// What the hub says of a file before it sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remote {
    /// Its contents' name: their SHA-256 where they are large, git's hash of them otherwise.
    pub(super) etag: String,
    /// In bytes.
    pub(super) size: Option<u64>,
}

impl Remote {
    /// The SHA-256 that the contents must have, in hexadecimal digits.
    pub(super) fn sha256(&self) -> Option<&str> {
        let is_hash = self.etag.len() == 64 && self.etag.bytes().all(|b| b.is_ascii_hexdigit());
        Some(&*self.etag).filter(|_| is_hash)
    }
}

impl<'a> Repository<'a> {
    /// Asks which commit a revision is and what files it has.
    pub(super) fn open(client: &Client, id: &'a HubId, watch: &mut Watch<'_>) -> Result<Self, Fault> {
        let revision = quote(&id.revision, "");
        let url = format!("{}/api/models/{}/revision/{revision}", client.endpoint(), id.repository());
        let answer = client.send(Method::Get(0), &url, watch)?;
        if !answer.response.status().is_success() {
            return Err(refusal(client, id, None, &answer));
        }
        let from = host(client.endpoint());
        let strange =
            |what: &str| Fault::fatal(format!("{from} answers {what} when asked for {id}; is HF_ENDPOINT right?"));
        let text = answer.response.into_body().into_with_config().limit(LARGEST_LISTING).read_to_vec();
        let text = text.map_err(|error| match error {
            ureq::Error::Io(error) => body(&url, &error),
            ureq::Error::BodyExceedsLimit(_) => strange("something far too long"),
            error => super::http::transport(&url, &error),
        })?;
        let json: serde_json::Value =
            serde_json::from_slice(&text).map_err(|_| strange("something that is no JSON"))?;
        let commit = json["sha"].as_str().filter(|commit| cache::is_plain(commit));
        let commit = commit.ok_or_else(|| strange("without a commit"))?.to_owned();
        let siblings = json["siblings"].as_array().ok_or_else(|| strange("without a list of files"))?;
        let names = siblings.iter().map(|file| file["rfilename"].as_str().map(str::to_owned));
        let files: BTreeSet<String> =
            names.collect::<Option<_>>().ok_or_else(|| strange("with files that have no name"))?;
        if let Some(name) = files.iter().find(|name| !is_inside(name)) {
            let message =
                format!("{id} lists the file {name:?}, which leads out of its folder; nothing was downloaded");
            return Err(Fault::fatal(message));
        }
        Ok(Self { id, commit, files })
    }

    /// A file must be in the listing.
    pub(super) fn require(&self, file: &str) -> Result<(), HubError> {
        if self.files.contains(file) {
            return Ok(());
        }
        let Self { id, commit, .. } = self;
        Err(HubError::Failed(format!("{} has no file {file} at {} ({commit})", id.repository(), id.revision)))
    }

    /// A repository must hold a pipeline.
    pub(super) fn require_pipeline(&self) -> Result<(), HubError> {
        if self.files.contains(INDEX) {
            return Ok(());
        }
        let repository = self.id.repository();
        let single = self.files.iter().find(|name| name.ends_with(".safetensors") && !name.contains('/'));
        let hint = single.map_or(String::new(), |file| format!("; one file of it is named as {repository}/{file}"));
        let message = format!("{repository} has no {INDEX}, so it is no pipeline in diffusers' layout{hint}");
        Err(HubError::Failed(message))
    }

    /// The files that its pipeline needs.
    pub(super) fn parts(&self, variant: Option<&str>, index: &[u8]) -> Result<Parts, HubError> {
        let repository = self.id.repository();
        let index = ModelIndex::from_json(&format!("{repository}/{INDEX}"), index)
            .map_err(|error| HubError::Failed(error.to_string()))?;
        Parts::choose(&self.files, variant, &index).map_err(|why| HubError::Failed(format!("{repository} {why}")))
    }

    /// Where a file is had.
    pub(super) fn url(&self, client: &Client, file: &str) -> String {
        format!("{}/{}/resolve/{}/{}", client.endpoint(), self.id.repository(), self.commit, quote(file, "/"))
    }

    /// Asks for a file's hash and size.
    pub(super) fn remote(&self, client: &Client, file: &str, watch: &mut Watch<'_>) -> Result<Remote, Fault> {
        let answer = client.send(Method::Head, &self.url(client, file), watch)?;
        let status = answer.response.status();
        if !status.is_success() && !status.is_redirection() {
            return Err(self.refusal(client, file, &answer));
        }
        let own = answer.response.headers();
        let etag = [(&answer.hub, "x-linked-etag"), (&answer.hub, "etag"), (own, "etag")];
        let etag =
            etag.into_iter().find_map(|(headers, name)| header(headers, name)).map(normalize).unwrap_or_default();
        if !cache::is_plain(etag) {
            let from = host(client.endpoint());
            let message =
                format!("{from} does not say which contents {file} of {} has; is HF_ENDPOINT right?", self.id);
            return Err(Fault::fatal(message));
        }
        let length = |headers: &HeaderMap, name| header(headers, name).and_then(|text| text.parse().ok());
        let size = length(&answer.hub, "x-linked-size");
        // The length of a redirect is that of its few words, not the file's.
        let size = size.or_else(|| length(own, "content-length").filter(|_| status.is_success()));
        Ok(Remote { etag: etag.to_owned(), size })
    }

    /// What it means that the hub does not give a file.
    pub(super) fn refusal(&self, client: &Client, file: &str, answer: &Answer) -> Fault {
        refusal(client, self.id, Some(file), answer)
    }
}

/// `W/"x"` and `"x"` are x.
fn normalize(etag: &str) -> &str {
    etag.trim().trim_start_matches("W/").trim_matches('"')
}

/// The sentence for an answer that means failure, and that another try would not change. The hub answers 401 also for repositories
/// that do not exist, lest strangers learn which private ones do; `X-Error-Code` tells more.
fn refusal(client: &Client, id: &HubId, file: Option<&str>, answer: &Answer) -> Fault {
    let (from, repository, revision) = (host(client.endpoint()), id.repository(), &id.revision);
    let code = header(&answer.hub, "x-error-code").unwrap_or_default();
    let status = answer.response.status();
    let unknown = "check its name, or, if it is private, let HF_TOKEN hold a token that may read it";
    let accept = format!("accept its conditions at {}/{repository}", client.endpoint());
    Fault::fatal(match (status.as_u16(), code) {
        (401, "GatedRepo") if !client.has_token() => {
            format!("{repository} is gated: {accept} and let HF_TOKEN hold a token of your account")
        }
        (401 | 403, "GatedRepo") | (403, "") => {
            format!(
                "{repository} is gated: {accept} with the account whose token HF_TOKEN holds, or wait until its owner agrees"
            )
        }
        (401 | 404, "RepoNotFound") | (401, _) if !client.has_token() => {
            format!("{from} shows no repository {repository} to strangers: {unknown}")
        }
        (401, _) => {
            format!("{from} does not accept the token for {repository}: it may be out of date; set HF_TOKEN anew")
        }
        (403, _) => format!("{from} forbids {repository} to the account whose token HF_TOKEN holds"),
        (404, "RevisionNotFound") => format!("{repository} has no revision {revision}"),
        (404, "EntryNotFound") => format!("{repository} has no file {} at {revision}", file.unwrap_or_default()),
        (404, "RepoNotFound") => format!("{from} has no repository {repository}: {unknown}"),
        (404, _) => match file {
            Some(file) => format!("{from} has no file {file} of {repository} at {revision}"),
            None if revision == "main" => format!("{from} has no repository {repository}: {unknown}"),
            None => format!("{from} has no repository {repository} with a revision {revision}: {unknown}"),
        },
        _ => {
            let what = file.map_or_else(|| id.to_string(), |file| format!("{file} of {id}"));
            format!("{from} answers {status} when asked for {what}")
        }
    })
}
