//! An allocator that refuses a thread more than a limit, so that an input that asks for too much shows.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Bytes that a thread may hold while an input runs.
const LIMIT: usize = 1 << 30;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static LIMITED: Cell<bool> = const { Cell::new(false) };
}

pub(crate) struct Limited;

fn add(size: usize) -> bool {
    let held = HELD.get().saturating_add(size);
    if LIMITED.get() && held > LIMIT {
        // What tells about it allocates.
        LIMITED.set(false);
        crate::driver::tell(&format_args!("an allocation of {size} bytes with {} held", HELD.get()));
        return false;
    }
    HELD.set(held);
    true
}

fn remove(size: usize) {
    HELD.set(HELD.get().saturating_sub(size));
}

// SAFETY: every call goes to the system's allocator unchanged, or fails as an allocator may.
unsafe impl GlobalAlloc for Limited {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !add(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !add(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        remove(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !add(size) {
            return std::ptr::null_mut();
        }
        remove(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// Runs `f` under the limit.
pub(crate) fn limited<T>(f: impl FnOnce() -> T) -> T {
    HELD.set(0);
    LIMITED.set(true);
    let result = f();
    LIMITED.set(false);
    result
}
