//! Which items of a batch wait for which, and who waits for itself.

use super::read::Item;
use super::text::Fault;
use crate::reason::Reason;

/// Items that wait for themselves, by way of others or not, are refused and wait for nothing any longer. So there is an end.
pub fn refuse_cycles(items: &mut [Item]) {
    let needs: Vec<Vec<usize>> = items.iter().map(|item| item.needs.clone()).collect();
    let mut needed: Vec<Vec<usize>> = vec![Vec::new(); items.len()];
    for (place, needs) in needs.iter().enumerate() {
        needs.iter().for_each(|need| needed[*need].push(place));
    }
    // Who can begin in the end is in none, nor is who holds up nobody that is left.
    let open = without_ends(&vec![true; items.len()], &needs, &needed);
    let cyclic = without_ends(&open, &needed, &needs);
    for (item, _) in items.iter_mut().zip(cyclic).filter(|(_, is_cyclic)| *is_cyclic) {
        let detail = "this item waits for itself, by way of those that it names";
        item.request = Err(Fault::new(Reason::BatchCycle, detail));
        item.needs.clear();
    }
}

/// Those of `open` that are left when again and again all are taken out that lead to no other one.
fn without_ends(open: &[bool], leads_to: &[Vec<usize>], comes_from: &[Vec<usize>]) -> Vec<bool> {
    let mut left = open.to_vec();
    let mut count: Vec<usize> =
        leads_to.iter().map(|others| others.iter().filter(|other| open[**other]).count()).collect();
    let mut ends: Vec<usize> = (0..left.len()).filter(|place| left[*place] && count[*place] == 0).collect();
    while let Some(end) = ends.pop() {
        left[end] = false;
        for other in &comes_from[end] {
            count[*other] -= 1;
            if left[*other] && count[*other] == 0 {
                ends.push(*other);
            }
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cyclic(needs: &[&[usize]]) -> Vec<usize> {
        let mut items: Vec<Item> = needs.iter().map(|needs| Item::waiting_for(needs.to_vec())).collect();
        refuse_cycles(&mut items);
        (0..items.len()).filter(|place| items[*place].request.is_err()).collect()
    }

    #[test]
    fn only_who_waits_for_itself_is_refused() {
        let none: [usize; 0] = [];
        assert_eq!(cyclic(&[&[], &[0], &[0, 1]]), none);
        assert_eq!(cyclic(&[&[0]]), [0]);
        // 0 comes before the circle, 3 behind it.
        assert_eq!(cyclic(&[&[], &[0, 2], &[1], &[2]]), [1, 2]);
        // Two circles with a way from one to the other: who is on the way can't be told from who is in one of them.
        assert_eq!(cyclic(&[&[0], &[0], &[1, 3], &[2], &[3]]), [0, 1, 2, 3]);
        // The last is taken out first, and its leaving opens nothing.
        assert_eq!(cyclic(&[&[1], &[], &[1]]), none);
    }
}
