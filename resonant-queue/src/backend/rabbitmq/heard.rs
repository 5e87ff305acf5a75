//! What the broker said of the messages of one flight, and when that is enough to answer who asked.
//!
//! The driver hands a message that came back to whichever is confirmed next. So a confirm that brings none says that all
//! which came back before it was handed out, with confirms that were given before; and one that brings the message of
//! another queue says nothing of its own until all of the flight are there.

use std::collections::HashMap;
use std::ops::Range;

use lapin::types::ShortString;
use lapin::{Confirmation, Result};

use super::error::{Fault, Partly};

/// What became of a message.
#[derive(Debug)]
enum Fate {
    /// Nothing was heard of it.
    Unheard,
    /// The broker confirmed it. It may have come back, too.
    Confirmed {
        /// Whether it brought the message of another queue.
        with_other: bool,
    },
    /// The queue refused it, and has not stored it.
    Refused,
    /// Nobody knows.
    Unknown(Fault),
}

/// What was heard of one queue.
#[derive(Debug)]
struct Tally {
    queue: ShortString,
    unheard: usize,
    /// All but those it refused.
    taken: usize,
    returned: usize,
}

/// What was heard of a flight.
#[derive(Debug)]
pub(super) struct Heard {
    /// By message: its queue's place among the tallies.
    places: Vec<usize>,
    fates: Vec<Fate>,
    tallies: Vec<Tally>,
    unheard: usize,
}

impl Heard {
    /// Nothing yet of messages to these queues.
    pub(super) fn new<'a>(queues: impl Iterator<Item = &'a ShortString>) -> Self {
        let (mut known, mut tallies) = (HashMap::new(), Vec::<Tally>::new());
        let places: Vec<usize> = queues
            .map(|queue| {
                let place = *known.entry(queue.as_str()).or_insert(tallies.len());
                if place == tallies.len() {
                    tallies.push(Tally { queue: queue.clone(), unheard: 0, taken: 0, returned: 0 });
                }
                tallies[place].unheard += 1;
                tallies[place].taken += 1;
                place
            })
            .collect();
        let fates: Vec<Fate> = places.iter().map(|_| Fate::Unheard).collect();
        Self { unheard: fates.len(), places, fates, tallies }
    }

    /// The broker answered for a message.
    pub(super) fn hear(&mut self, index: usize, confirmed: Result<Confirmation>) {
        match confirmed {
            Ok(Confirmation::NotRequested) => self.unknown(index, Fault::Refused),
            Ok(confirmation) => {
                let refused = confirmation.is_nack();
                let returned = confirmation.take_message().map(|it| it.delivery.routing_key);
                self.confirmed(index, refused, returned.as_ref());
            }
            Err(error) => self.unknown(index, error.into()),
        }
    }

    /// It was taken or refused, and a message to some queue came back.
    fn confirmed(&mut self, index: usize, refused: bool, returned: Option<&ShortString>) {
        let own = self.places[index];
        let mut with_other = false;
        if let Some(returned) = returned {
            let place = self.tallies.iter().position(|tally| tally.queue == *returned);
            with_other = place != Some(own);
            if let Some(place) = place {
                self.tallies[place].returned += 1;
            }
        }
        if refused {
            self.tallies[own].taken -= 1;
            self.set(index, Fate::Refused);
        } else {
            self.set(index, Fate::Confirmed { with_other });
        }
    }

    fn unknown(&mut self, index: usize, fault: Fault) {
        self.set(index, Fate::Unknown(fault));
    }

    fn set(&mut self, index: usize, fate: Fate) {
        self.tallies[self.places[index]].unheard -= 1;
        self.unheard -= 1;
        self.fates[index] = fate;
    }

    /// Whether all is stored.
    pub(super) fn is_good(&self) -> bool {
        let stored = |fate: &Fate| matches!(fate, Fate::Confirmed { with_other: false });
        self.fates.iter().all(stored) && self.tallies.iter().all(|tally| tally.returned == 0)
    }

    /// Whether nothing at all was heard.
    pub(super) fn is_silent(&self) -> bool {
        self.unheard == self.fates.len()
    }

    /// The queues that have not answered for all that is theirs.
    pub(super) fn silent_queues(&self) -> impl Iterator<Item = &ShortString> {
        self.tallies.iter().filter(|tally| tally.unheard > 0).map(|tally| &tally.queue)
    }

    /// What became of some of the messages; `None` as long as that is open. All that the driver knows must have been
    /// heard.
    pub(super) fn outcome(&self, range: Range<usize>) -> Option<std::result::Result<(), Partly>> {
        let open = range.clone().any(|index| self.is_open(index));
        (!open).then(|| self.judge(range))
    }

    /// The same, when nothing will be heard any more.
    pub(super) fn last_word(&self, range: Range<usize>) -> std::result::Result<(), Partly> {
        self.judge(range)
    }

    fn is_open(&self, index: usize) -> bool {
        let tally = &self.tallies[self.places[index]];
        match self.fates[index] {
            Fate::Unheard => true,
            Fate::Confirmed { with_other: true } => self.unheard > 0,
            // Which of them came back is not known, only how many.
            _ => tally.returned > 0 && tally.unheard > 0,
        }
    }

    fn judge(&self, range: Range<usize>) -> std::result::Result<(), Partly> {
        let (mut failed, mut may_have_applied) = (None, false);
        for index in range {
            let tally = &self.tallies[self.places[index]];
            let gone = || Fault::Unroutable(tally.queue.to_string());
            let fault = match &self.fates[index] {
                Fate::Confirmed { .. } if tally.returned > 0 => {
                    may_have_applied |= self.is_open(index) || tally.returned < tally.taken;
                    gone()
                }
                Fate::Confirmed { .. } => {
                    may_have_applied = true;
                    if !self.is_open(index) {
                        continue;
                    }
                    Fault::Late("a publish")
                }
                Fate::Refused if tally.returned > 0 => gone(),
                Fate::Refused => Fault::Refused,
                Fate::Unheard => {
                    may_have_applied = true;
                    Fault::Late("a publish")
                }
                Fate::Unknown(fault) => {
                    may_have_applied = true;
                    fault.clone()
                }
            };
            failed.get_or_insert(fault);
        }
        failed.map_or(Ok(()), |fault| Err(Partly { fault, may_have_applied }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flight(queues: &[&str]) -> Heard {
        let queues: Vec<ShortString> = queues.iter().map(|queue| (*queue).into()).collect();
        Heard::new(queues.iter())
    }

    /// `None` as long as it is open; otherwise what failed, and whether it may have applied.
    fn told(heard: &Heard, range: Range<usize>) -> Option<Option<(String, bool)>> {
        let outcome = heard.outcome(range)?;
        Some(outcome.err().map(|partly| (partly.fault.to_string(), partly.may_have_applied)))
    }

    #[test]
    fn each_is_answered_when_its_own_are_confirmed() {
        let mut heard = flight(&["a", "b", "a", "c"]);
        assert!(heard.is_silent());
        heard.confirmed(1, false, None);
        heard.confirmed(3, false, None);
        assert_eq!((told(&heard, 1..2), told(&heard, 3..4)), (Some(None), Some(None)));
        assert_eq!((told(&heard, 0..1), told(&heard, 1..3)), (None, None));
        assert_eq!(heard.silent_queues().map(ShortString::as_str).collect::<Vec<_>>(), ["a"]);
        // Nothing will be heard of the rest.
        let partly = heard.last_word(1..3).unwrap_err();
        assert!(partly.may_have_applied && matches!(partly.fault, Fault::Late(_)), "{partly:?}");
        assert!(heard.last_word(1..2).is_ok() && !heard.is_good() && !heard.is_silent());
        heard.confirmed(0, false, None);
        heard.confirmed(2, false, None);
        assert!(heard.is_good() && told(&heard, 0..4) == Some(None));
    }

    #[test]
    fn a_confirm_with_the_message_of_another_queue_says_nothing_before_the_end() {
        let mut heard = flight(&["gone", "also gone", "there"]);
        // The message of the first comes with the confirm of the second, whose own comes with the third's.
        heard.confirmed(1, false, Some(&"gone".into()));
        assert_eq!(told(&heard, 1..2), None);
        heard.confirmed(2, false, Some(&"also gone".into()));
        assert_eq!(told(&heard, 2..3), None);
        assert!(heard.last_word(2..3).unwrap_err().may_have_applied, "it may have come back, too");
        heard.confirmed(0, false, None);
        let gone = |queue: &str| Some(Some((format!("the queue {queue} is gone"), false)));
        assert_eq!(told(&heard, 0..1), gone("gone"));
        assert_eq!(told(&heard, 1..2), gone("also gone"));
        assert_eq!(told(&heard, 2..3), Some(None));
        assert!(!heard.is_good());
    }

    #[test]
    fn nothing_is_stored_only_if_as_many_came_back_as_were_taken() {
        for (back, in_doubt) in [(2, true), (3, false)] {
            let mut heard = flight(&["gone"; 4]);
            heard.confirmed(0, true, None);
            for index in 1..4 {
                assert_eq!(told(&heard, 1..2).is_some(), index > 1 && index <= 4 - back);
                let gone = ShortString::from("gone");
                heard.confirmed(index, false, (index + back >= 4).then_some(&gone));
            }
            let fault = "the queue gone is gone".to_owned();
            assert_eq!(told(&heard, 1..4), Some(Some((fault.clone(), in_doubt))));
            assert_eq!(told(&heard, 0..1), Some(Some((fault, false))), "it was refused");
        }
    }

    #[test]
    fn what_was_refused_was_not_stored_and_what_failed_is_in_doubt() {
        let mut heard = flight(&["a", "b", "c"]);
        heard.confirmed(0, true, None);
        heard.unknown(1, Fault::Blocked);
        heard.confirmed(2, false, None);
        let refused = Fault::Refused.to_string();
        assert_eq!(told(&heard, 0..1), Some(Some((refused.clone(), false))));
        assert_eq!(told(&heard, 1..2), Some(Some((Fault::Blocked.to_string(), true))));
        assert_eq!(told(&heard, 0..3), Some(Some((refused, true))), "the last is stored");
    }
}
