//! The record at the voters: who may write it, what is read from it, and what follows once a majority has it.

use super::*;

impl Core {
    pub(super) fn voted(
        &mut self,
        now: Now,
        voter: usize,
        round: u64,
        vote: Option<Vote>,
        out: &mut Vec<Output>,
    ) {
        if self.writing.as_ref().is_some_and(|writing| writing.round == round) {
            return self.written(now, voter, vote, out);
        }
        let (setup, election) = (&self.setup, &mut self.election);
        let outcome =
            election.vote(now.mono, (voter, round), vote, &setup.config, &mut self.chance, out);
        match outcome {
            Some(Outcome::Granted(newest)) => self.granted(now, newest, out),
            Some(Outcome::Lost) => self.lose(now, out),
            Some(Outcome::Surveyed(Some(settled))) => {
                if self.is_newer(&settled) && self.read(now, &settled, out) {
                    self.publish(out);
                }
            }
            Some(Outcome::Surveyed(None)) | None => {}
        }
    }

    /// Whether a settled record is newer than what is known. Terms fall where voters were restored from older states, but
    /// epochs do not.
    pub(super) fn is_newer(&self, stored: &Stored) -> bool {
        let known = self.record.as_ref().map_or(0, |record| record.epoch);
        let epoch =
            || serde_json::from_str::<Record>(&stored.value).map_or(0, |record| record.epoch);
        stored.stamp() > self.stamp || (stored.stamp() != self.stamp && epoch() > known)
    }

    pub(super) fn read(&mut self, now: Now, stored: &Stored, out: &mut Vec<Output>) -> bool {
        match serde_json::from_str::<Record>(&stored.value) {
            Ok(record) => {
                let ours = self.own_regions();
                self.foreign = !record.regions.is_empty() && record.regions != ours;
                self.election.barred = self.foreign;
                if self.foreign {
                    let theirs = &record.regions;
                    tracing::error!(?ours, ?theirs, "{}", Reason::OtherRegions);
                    self.refuse(now, Kind::Adopt, &[Reason::OtherRegions], out);
                    return false;
                }
                self.forgive(Kind::Adopt);
                self.record = Some(record);
                self.stamp = stored.stamp();
                true
            }
            Err(error) => {
                tracing::error!(%error, "the record at the voters cannot be read; it is left alone");
                false
            }
        }
    }

    pub(super) fn own_regions(&self) -> Vec<RegionName> {
        let mut regions = self.setup.regions.clone();
        regions.sort_unstable();
        regions
    }

    /// A new holder takes the record over: nobody else can write it from here on.
    pub(super) fn granted(&mut self, now: Now, newest: Option<Stored>, out: &mut Vec<Output>) {
        let Some(term) = self.election.term(now.mono) else { return };
        self.forget_wishes(now, out);
        self.run = Run::default();
        self.flights.clear();
        self.adopted = None;
        for view in self.views.values_mut() {
            view.astray = 0;
        }
        if let Some(stored) = &newest
            && !self.read(now, stored, out)
        {
            self.election.drop_lease(true, out);
            return;
        }
        if newest.is_none() {
            self.record = None;
        }
        // Somebody else's failover is not to be finished by one who may not promote.
        let begun = self.record.as_ref().is_some_and(|record| record.intent.is_some());
        if begun && !self.config().allow_promotion {
            self.election.drop_lease(true, out);
            return;
        }
        self.tell(now, EventKind::LeaseTaken { term }, out);
        self.stamp = (term, self.stamp.1);
        match self.record.clone() {
            None => self.adopted = Some(term),
            Some(mut record) => {
                if self.flawed(Flaw::ForgetIntent) {
                    record.intent = None;
                } else if record.intent.is_some() {
                    record = self.begun_again(record);
                }
                self.write(now, record, out);
            }
        }
    }

    /// Writes the record; what follows happens once a majority has it.
    pub(super) fn write(&mut self, now: Now, record: Record, out: &mut Vec<Output>) {
        self.write_and_tell(now, record, Vec::new(), out);
    }

    /// Writes the record, and tells of it once a majority has it: what is lost with the lease has not happened.
    pub(super) fn write_and_tell(
        &mut self,
        now: Now,
        mut record: Record,
        events: Vec<EventKind>,
        out: &mut Vec<Output>,
    ) {
        let Some(term) = self.election.term(now.mono) else { return };
        record.regions = self.own_regions();
        let Ok(value) = serde_json::to_string(&record) else { return };
        let version = self.stamp.1 + 1;
        let stored = Stored { term, version, value: value.into() };
        self.stamp = stored.stamp();
        let votes = vec![None; self.setup.voters];
        self.writing = Some(Writing { round: 0, stored, record, votes, sent: now.mono, events });
        self.send_write(now, out);
    }

    pub(super) fn send_write(&mut self, now: Now, out: &mut Vec<Output>) {
        let round = self.election.next_round();
        let owner = self.setup.owner.clone();
        let Some(writing) = &mut self.writing else { return };
        (writing.round, writing.sent) = (round, now.mono);
        writing.votes.fill(None);
        let ballot = Ballot::Write { owner, record: writing.stored.clone() };
        for voter in 0..writing.votes.len() {
            out.push(Output::Cast { voter, round, ballot: ballot.clone() });
        }
    }

    /// Sends a write again that no majority has answered.
    pub(super) fn resend(&mut self, now: Now, out: &mut Vec<Output>) {
        let patience = (self.config().lease_ttl / 10).min(Duration::from_secs(1));
        let stuck =
            self.writing.as_ref().is_some_and(|writing| now.mono >= writing.sent + patience);
        if stuck {
            self.send_write(now, out);
        }
    }

    pub(super) fn written(
        &mut self,
        now: Now,
        voter: usize,
        vote: Option<Vote>,
        out: &mut Vec<Output>,
    ) {
        let majority = self.election.majority();
        let Some(writing) = &mut self.writing else { return };
        let Some(slot) = writing.votes.get_mut(voter) else { return };
        *slot = Some(vote.map(|vote| vote.done));
        let count =
            |wanted| writing.votes.iter().filter(|vote| **vote == Some(Some(wanted))).count();
        let (done, refused) = (count(true), count(false));
        if done >= majority {
            let Some(writing) = self.writing.take() else { return };
            self.record = Some(writing.record);
            self.adopted = Some(writing.stored.term);
            self.publish(out);
            for kind in writing.events {
                self.tell(now, kind, out);
            }
        } else if refused > self.setup.voters - majority {
            self.election.drop_lease(true, out);
            self.lose(now, out);
        }
    }

    pub(super) fn publish(&mut self, out: &mut Vec<Output>) {
        let Some(record) = &self.record else { return };
        let Some(primary) = record.primary.clone() else { return };
        let newer = record.published > self.told;
        if newer || (self.flawed(Flaw::TellLowerEpochs) && record.published != self.told) {
            self.told = record.published;
            out.push(Output::Publish { epoch: record.published, primary });
        }
    }
}
