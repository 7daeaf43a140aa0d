// nydusd-keeper: the two small processes that stand between the kernel and whoever fills the devices of kernel EROFS mounts (nydusd --fill fanotify).
// The kernel asks before each read of a marked cache file, and lets the read pass when the last descriptor of its questions is closed: the reader would
// see zeros. So keeper and guardian both have it, and neither ever allows a read by itself. src/serve/erofs/keeper-client.ts is the other side,
// src/wire/fanotify/keeper-message.ts has the messages.
//
//   kernel ──question──► keeper ──EVENT──► server (nydusd): fetches, verifies, writes, answers
//                          │ ▲
//          descriptors     ▼ │ each hears at once when the other dies
//                        guardian
//
// The keeper dies: the guardian goes on in its place, with the same descriptors, questions and socket, and makes a new guardian. The guardian dies: the
// keeper makes a new one. The server dies: the next one gets the open questions. None can be replaced: the incomplete files are cut to nothing, so
// that reads fail whatever happens afterwards.
#ifndef NYDUS_KEEPER_H
#define NYDUS_KEEPER_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

// MAX_OPEN: questions that are open at once, a blocked reader each; more are failed. Descriptors below it are questions, all others are above: a number
// that means a question of a keeper that died cannot come to mean something else in the one that goes on.
enum { MAX_FILES = 1024, MAX_OPEN = 8192, INBOX_SIZE = 16384, MAX_ROWS = 64, MAX_PACKET = 64 * 1024 };

// One message; a packet is one with descriptors, or up to MAX_ROWS without.
typedef struct {
  uint32_t kind, file, event, error;
  uint64_t offset, length, serial;
} Row;

// From the server. KEEP, STATE and their answers carry a descriptor.
enum { HELLO = 1, KEEP, RELEASE, ANSWER, STATE, BYE, COMPLETE };
// To the server.
enum { WELCOME = 32, FILE_KEPT, EVENT, KEPT, RELEASED, STATED, COMPLETED };

// A question of the kernel that has no answer yet; its number is its descriptor in the process that read it.
typedef struct {
  uint32_t file; // + 1; 0: none
  uint64_t offset, length;
  uint64_t serial; // numbers are used again: an answer that comes twice must not be taken for another question's
} Open;

// Both processes have this. Whoever dies leaves it as it was at that moment.
typedef struct {
  // The kernel writes what is read here, before the reading process knows: nothing that was read is lost with it.
  _Alignas(8) char inbox[INBOX_SIZE];
  uint32_t files_end;
  uint32_t open_end;
  uint64_t last_serial;
  bool alone;      // nothing may be answered any more but with an error
  bool said_bye;   // the last server ended on purpose
  struct {
    bool kept;
    bool complete;   // synced and verified by the server: nobody needs to ask
    dev_t device;
    ino_t inode;
  } files[MAX_FILES];
  Open open[MAX_OPEN];
} Journal;

extern Journal *journal;
extern int questions;        // of fanotify
extern int kept[MAX_FILES];  // descriptors, opened before the mark
extern int state;            // what the server wants the next one to know; -1

// --- packet.c ---
ssize_t packet_send(int channel, const void *bytes, size_t length, const int *fds, int count); // never blocks; < 0: the peer is gone (or EAGAIN)
ssize_t packet_receive(int channel, void *bytes, size_t size, int *fds, int count);            // never blocks; 0: the peer is gone

// --- questions.c ---
bool questions_begin(void);
int questions_mark(int file);   // 0 or an errno
void questions_unmark(int file);
void questions_read(void);      // writes down what the kernel asks
void questions_recall(void);    // what a process that died has read, before this one reads
void questions_sweep(void);     // fails what others have read of whom nothing is left, whatever its number: else a number of ours could mean one of theirs
void questions_answer(uint32_t event, uint32_t error);
int descriptor_raise(int fd);   // the same one above MAX_OPEN; -1 stays

// --- files.c ---
int file_add(int fd, uint32_t *file); // 0, EEXIST when it is kept already, or another errno
void file_drop(uint32_t file);
bool file_is_used(uint32_t file);     // somebody else has it open
bool files_prepare(void);             // what `files_cut` needs, made while all is well; once in each process
void files_cut(void);                 // reads fail from now on, whatever happens to us

// --- server.c ---
extern int server; // -1: none
void server_accept(int listener);
void server_hear(void);
void server_tell(void); // questions that it has not heard yet
bool server_is_behind(void);

// --- guardian.c ---
bool guardian_begin(void);                                     // in the keeper: a new one; false: there is none
bool guardian_tell(uint32_t kind, uint32_t file, int fd);      // and waits until it has it
int guardian_channel(void);
_Noreturn void keeper_run(void);

#endif
