//! `discovery: { dns: … }` — every address of a name is an instance, or every target of its SRV
//! records.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::resolver::{Resolve, SrvRecord};
use super::target::{Host, Target, Wanted};
use crate::config::DnsSource;
use crate::service::discovered::{MAX_INSTANCES, MAX_PRIORITY};

const RETRY: Duration = Duration::from_secs(1);

/// Address records: the name is the one target, resolved like any other name.
pub fn addresses(source: &DnsSource) -> Wanted {
    let Some(port) = source.port else {
        let fault = format!("{}: no port is given", source.name.value);
        return Wanted { fault: Some(fault), ..Wanted::default() };
    };
    let host = Host::parse(&source.name);
    Wanted::now(vec![Target {
        host,
        port,
        weight: 1,
        authority: format!("{}:{port}", source.name.trim_end_matches('.')).into(),
        zone: None,
        priority: 0,
        scheme: None,
        description: None,
    }])
}

/// SRV records, asked again each `refresh`, or sooner when their TTL is shorter. A failure keeps the targets of the last answer.
pub async fn srv(source: DnsSource, resolver: Arc<dyn Resolve>, wanted: watch::Sender<Wanted>) {
    let mut failures = 0_u32;
    loop {
        let answer = resolver.srv(&source.name).await;
        let pause = match answer {
            Ok(answer) => {
                failures = 0;
                let pause = answer.refresh(source.refresh);
                let now = targets_of(answer.records);
                wanted.send_if_modified(|wanted| std::mem::replace(wanted, now.clone()) != now);
                pause
            }
            Err(error) => {
                let pause = RETRY.saturating_mul(1 << failures.min(16)).min(source.refresh);
                failures = failures.saturating_add(1);
                let fault = Some(format!("SRV records of {}: {error}", source.name.value));
                wanted
                    .send_if_modified(|wanted| std::mem::replace(&mut wanted.fault, fault.clone()) != fault);
                pause
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// All records, with the classes of priority numbered anew from the best one on (RFC 2782: the lowest number), and those
/// beyond the last that there is in that.
fn targets_of(mut records: Vec<SrvRecord>) -> Wanted {
    // A target of "." says that the service is decidedly not available at this name.
    records.retain(|record| record.target != "." && record.port != 0);
    records.sort_unstable_by(|a, b| (a.priority, &a.target, a.port).cmp(&(b.priority, &b.target, b.port)));
    let total = records.len();
    let classes = records.chunk_by(|one, other| one.priority == other.priority);
    let numbered =
        (0..).zip(classes).flat_map(|(number, class)| class.iter().map(move |record| (number, record)));
    let targets = numbered.take(MAX_INSTANCES).map(|(number, record)| target_of(record, number)).collect();
    let fault = (total > MAX_INSTANCES).then(|| {
        format!("{} SRV records beyond the first {MAX_INSTANCES} are left out", total - MAX_INSTANCES)
    });
    Wanted { fault, ..Wanted::now(targets) }
}

fn target_of(record: &SrvRecord, class: usize) -> Target {
    let authority = format!("{}:{}", record.target.trim_end_matches('.'), record.port).into();
    Target {
        host: Host::parse(&record.target),
        port: record.port,
        // "Records with weight 0 should have a very small chance of being selected" (RFC 2782).
        weight: u32::from(record.weight).max(1),
        authority,
        zone: None,
        priority: class.min(MAX_PRIORITY.into()) as u8,
        scheme: None,
        description: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(priority: u16, weight: u16, port: u16, target: &str) -> SrvRecord {
        SrvRecord { priority, weight, port, target: target.into() }
    }

    #[test]
    fn the_classes_of_priority_are_counted_from_the_best_and_no_weight_is_zero() {
        let wanted = targets_of(vec![
            record(20, 1, 80, "spare.internal."),
            record(10, 0, 8002, "b.internal."),
            record(10, 7, 8001, "a.internal."),
            record(u16::MAX, 1, 80, "last.internal."),
        ]);
        let targets = wanted.targets.iter().flat_map(|t| t.iter());
        let targets: Vec<_> = targets.map(|t| (&*t.authority, t.weight, t.priority)).collect();
        let classes = [
            ("a.internal:8001", 7, 0),
            ("b.internal:8002", 1, 0),
            ("spare.internal:80", 1, 1),
            ("last.internal:80", 1, 2),
        ];
        assert_eq!(targets, classes);
        let many = targets_of((0..20).map(|class| record(class, 1, 80, "a.internal.")).collect());
        let last = many.targets.as_deref().and_then(|targets| targets.last());
        assert_eq!(last.map(|target| target.priority), Some(MAX_PRIORITY));
        assert_eq!(wanted.fault, None);
    }

    #[test]
    fn a_target_of_the_root_means_no_such_service() {
        assert_eq!(targets_of(vec![record(0, 0, 0, ".")]), Wanted::now(vec![]));
    }

    #[test]
    fn more_records_than_a_set_holds_are_counted() {
        let records = (1..=MAX_INSTANCES as u16 + 2).map(|port| record(0, 1, port, "a.internal.")).collect();
        let wanted = targets_of(records);
        assert_eq!(wanted.targets.map(|t| t.len()), Some(MAX_INSTANCES));
        assert_eq!(wanted.fault.as_deref(), Some("2 SRV records beyond the first 10000 are left out"));
    }
}
