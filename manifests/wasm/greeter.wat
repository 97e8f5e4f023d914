;; Says what is in the file `text` of the first folder that it was given, and goes on until it is stopped.
;; greeter.tar beside this file is it, compiled and packed as an OCI artifact; a test compares the two.
(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 1024) "text")

  (func $must (param $error i32)
    (if (local.get $error) (then unreachable)))

  (func (export "_start")
    ;; The file's number comes to 16; folders begin at 3; the right 2 is to read.
    (call $must (call $open (i32.const 3) (i32.const 0) (i32.const 1024) (i32.const 4) (i32.const 0)
      (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 16)))
    ;; One piece of at most 4096 bytes, to 4096; how many there were comes to 12.
    (i32.store (i32.const 0) (i32.const 4096))
    (i32.store (i32.const 4) (i32.const 4096))
    (call $must (call $read (i32.load (i32.const 16)) (i32.const 0) (i32.const 1) (i32.const 12)))
    (i32.store (i32.const 4) (i32.load (i32.const 12)))
    (call $must (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12)))
    ;; A clock's subscription of an hour, for ever: all but the nanoseconds is zero.
    (i64.store (i32.const 280) (i64.const 3600000000000))
    (loop $again
      (call $must (call $poll (i32.const 256) (i32.const 320) (i32.const 1) (i32.const 12)))
      (br $again))))
