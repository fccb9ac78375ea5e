//! What the agent does with each datagram, before it looks a metric up, takes no memory.
#![expect(unsafe_code, reason = "only a global allocator can count allocations")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use tidemark_agent::parse::dogstatsd;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get().wrapping_add(1)));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(act: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    act();
    ALLOCATIONS.with(Cell::get).wrapping_sub(before)
}

#[test]
fn split_and_whole_values_allocate_nothing() {
    let datagram = b"a.b:1:2:3|c|#customer:acme,plan:pro|T1795362675\nu:u7|s|@1.00|#customer:x\r\n\n_e{1,1}:t|b\nbad";
    let mut read: usize = 0;
    let counted = allocations(|| {
        for line in dogstatsd::lines(datagram) {
            if let Ok(raw) = dogstatsd::split(line) {
                read = read.wrapping_add(dogstatsd::values(&raw).filter(Result::is_ok).count());
            }
        }
    });
    assert_eq!((read, counted), (4, 0));
    assert!(allocations(|| drop(vec![0_u8; 8])) > 0, "the allocator counts");
}
