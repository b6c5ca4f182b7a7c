//! Bodies that are too long for one entry: parts, and a commit that makes them one.

use std::collections::VecDeque;

use super::Waiting;
use crate::entry::Body;

/// How many long bodies are sent at a time.
const UPLOADS_MAX: usize = 2;

#[derive(Debug)]
struct Upload<T> {
    number: u64,
    /// Not sent yet. The last one is the commit.
    bodies: VecDeque<Body>,
    unacknowledged: usize,
    /// Whether a part was sent.
    is_begun: bool,
    waiting: Waiting<T>,
}

#[derive(Debug)]
pub(super) struct Uploads<T> {
    /// In the order in which they came.
    uploads: VecDeque<Upload<T>>,
    /// Those that were given up after a part was sent, to be told to the nodes.
    given_up: VecDeque<u64>,
    next_number: u64,
}

impl<T> Default for Uploads<T> {
    fn default() -> Self {
        Uploads {
            uploads: VecDeque::new(),
            given_up: VecDeque::new(),
            next_number: 1,
        }
    }
}

impl<T> Uploads<T> {
    /// The number of the next upload.
    pub(super) fn next_number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    /// Begins an upload of these parts and their commit.
    pub(super) fn push(&mut self, number: u64, bodies: Vec<Body>, waiting: Waiting<T>) {
        self.uploads.push_back(Upload {
            number,
            unacknowledged: bodies.len().saturating_sub(1),
            bodies: bodies.into(),
            is_begun: false,
            waiting,
        });
    }

    /// The next part to be sent, and the number of its upload.
    pub(super) fn next_part(&mut self) -> Option<(u64, Body)> {
        let mut open = self.uploads.iter_mut().take(UPLOADS_MAX);
        let upload = open.find(|upload| upload.bodies.len() > 1)?;
        upload.is_begun = true;
        Some((upload.number, upload.bodies.pop_front()?))
    }

    /// The commit of an upload that has all its parts in the log; the upload ends with it.
    pub(super) fn next_commit(&mut self) -> Option<(Body, Waiting<T>)> {
        let is_there = |upload: &Upload<T>| upload.unacknowledged == 0;
        let place = self.uploads.iter().position(is_there)?;
        let mut upload = self.uploads.remove(place)?;
        Some((upload.bodies.pop_back()?, upload.waiting))
    }

    /// A commit of an upload that was given up, which no parts can be what it says: nodes remove
    /// those that they have. Without it they keep them for two hours.
    pub(super) fn next_given_up(&mut self) -> Option<Body> {
        let upload = self.given_up.pop_front()?;
        Some(Body::Commit {
            upload,
            parts: 1,
            length: 1,
            digest: [0; 16],
        })
    }

    /// Notes that the log has taken a part.
    pub(super) fn acknowledge(&mut self, number: u64) {
        if let Some(upload) = self.uploads.iter_mut().find(|upload| upload.number == number) {
            upload.unacknowledged = upload.unacknowledged.saturating_sub(1);
        }
    }

    /// Gives an upload up.
    pub(super) fn remove(&mut self, number: u64) -> Option<Waiting<T>> {
        let place = self.uploads.iter().position(|upload| upload.number == number)?;
        let upload = self.uploads.remove(place)?;
        self.given_up.extend(upload.is_begun.then_some(number));
        Some(upload.waiting)
    }

    pub(super) fn deadline_ms(&self) -> Option<u64> {
        self.uploads.iter().map(|upload| upload.waiting.deadline_ms).min()
    }

    pub(super) fn take_expired(&mut self, now_ms: u64) -> Vec<(u64, Waiting<T>)> {
        let is_expired = |upload: &&Upload<T>| upload.waiting.deadline_ms <= now_ms;
        let numbers: Vec<_> = self
            .uploads
            .iter()
            .filter(is_expired)
            .map(|upload| upload.number)
            .collect();
        let expired = numbers.into_iter().map(|number| Some((number, self.remove(number)?)));
        expired.flatten().collect()
    }

    pub(super) fn take_all(&mut self) -> Vec<Waiting<T>> {
        self.uploads.drain(..).map(|upload| upload.waiting).collect()
    }
}
