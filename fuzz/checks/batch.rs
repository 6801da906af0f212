//! The body of a batch is refused in words or is a list of items, each of which can be begun in some order; what is sent
//! on unchanged stands in the body as it is sent.

use std::collections::HashSet;

use bytes::Bytes;
use gatehouse::action::{ItemBody, read_batch};

const MOST: usize = 8;

pub fn batch(input: &[u8]) {
    let body = Bytes::copy_from_slice(input);
    let requests = match read_batch(&body, MOST, &|name| name == "host") {
        Ok(requests) => requests,
        Err(told) => {
            assert!(!told.is_empty() && told.len() < 300 && !told.contains(char::is_control), "{told:?}");
            return;
        }
    };
    let items = &requests.items;
    assert!((1..=MOST).contains(&items.len()));
    let ids: Vec<_> = items.iter().filter_map(|item| item.id.as_deref()).collect();
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
    assert!(ids.iter().all(|id| !id.is_empty() && id.len() <= 64 && !id.contains(['{', '}', '.', '"'])));
    let mut begun = HashSet::new();
    while let Some(next) = (0..items.len())
        .find(|place| !begun.contains(place) && items[*place].needs.iter().all(|need| begun.contains(need)))
    {
        begun.insert(next);
    }
    assert_eq!(begun.len(), items.len(), "some wait for each other");
    for item in items {
        assert!(item.needs.windows(2).all(|pair| pair[0] < pair[1]));
        let Ok(request) = &item.request else {
            assert!(item.needs.is_empty());
            continue;
        };
        assert!(request.fields.iter().all(|(name, _)| name != "host"));
        if let ItemBody::Json(json) = &request.body {
            assert!(body.windows(json.len()).any(|part| part == json));
        }
    }
}
