// Package output captures one output stream of a payload: it reads the pipe,
// counts every byte, keeps what the policy allows and feeds live subscribers.
//
// # Where the bytes are
//
// Up to 64 KiB stay in memory: most executions print little, and a file costs
// more than the rest of the capture. The stream moves to a file (mode 0600, in
// the directory of the execution) when it outgrows that, or when 100 ms have
// passed since its first byte; from then on every chunk is written at once. A
// kill -9 of the shim therefore loses from the file only what arrived less than
// 100 ms after the first byte of the stream. What such a file holds is salvage:
// the execution counts as lost, and a tail is still a ring of unknown start.
// Save makes the file whole and ordered once the stream is frozen.
//
// # Memory
//
// A stream holds one read buffer (4 KiB, 64 KiB once the payload prints more),
// at most 64 KiB of kept bytes, 64 KiB for each subscriber that replays, and
// after Finish what the pipe still held for subscribers that lag (256 KiB; the
// payload itself can raise that to the host's fs.pipe-max-size, 1 MiB unless the
// administrator changed it). Save borrows 512 KiB. Only Bytes costs what it returns.
//
// The pipe starts at the kernel's 64 KiB and becomes 256 KiB when a read fills
// the buffer. On a 2-core machine 1 GiB written in pieces of 64 KiB passes at 1.5 GB/s,
// 2.0 and 2.1 with a pipe of 64 KiB, 256 KiB and 1 MiB; the pages are charged to the
// payload's memory limit, which is why the last step is not taken.
//
// A subscriber with a pipe of its own (PipeTo) gets what is not kept by splice from
// one pipe to the other, without a copy.
//
// # How it waits
//
// The read end is non-blocking and belongs to the runtime's poller. Against a
// blocking read in a thread the difference over a process of a few
// milliseconds is below the noise (1.44 against 1.36, 1.76 against 2.01 and 1.54
// against 1.51 ms in three interleaved rounds of 100), ttrpc has paid for the
// epoll instance, and only the poller can be interrupted and carry a deadline.
package output
