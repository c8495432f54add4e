//! Buffers that the connections of a shard use in turn: a connection that is idle holds none. Holds no
//! bytes of anybody between two turns.

use super::inbound::ContextPool;
use crate::defaults::READ_CHUNK_BYTES;

/// One of each, taken for a turn and given back.
#[derive(Debug)]
pub(super) struct ReadBuffers {
    /// States of the WebSocket library.
    pub(super) contexts: ContextPool,
    chunk: Vec<u8>,
    replies: Vec<u8>,
}

impl Default for ReadBuffers {
    fn default() -> Self {
        Self { contexts: ContextPool::default(), chunk: vec![0; READ_CHUNK_BYTES], replies: Vec::new() }
    }
}

impl ReadBuffers {
    /// For what one read takes from a socket.
    pub(super) fn take_chunk(&mut self) -> Vec<u8> {
        // Taken and not borrowed: what is read calls back into the shard that owns these.
        std::mem::take(&mut self.chunk)
    }

    /// Gives the chunk back.
    pub(super) fn return_chunk(&mut self, chunk: Vec<u8>) {
        self.chunk = chunk;
    }

    /// For answers of the library: pongs, close replies.
    pub(super) fn take_replies(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.replies)
    }

    /// Gives the buffer of replies back.
    pub(super) fn return_replies(&mut self, mut replies: Vec<u8>) {
        replies.clear();
        self.replies = replies;
    }
}
