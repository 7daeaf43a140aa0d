// nydusd-holder: the small process that stands for a daemon. It keeps the FUSE descriptor, the daemon's state, the API socket and its idle connections,
// and lends them to a server process, which does all the work; when that one dies, the next one goes on. src/cli/nydusd/held.ts is the other side.
//
// Messages (SOCK_SEQPACKET; words separated by NUL, descriptors beside them):
//   to the server    start LISTENING CWD AUTH ARGUMENT…    begin a daemon with these arguments and this IMAGE_PULL_AUTH; LISTENING: 1 when the API socket is there
//                    restore LISTENING CWD AUTH ARGUMENT… [fuse, state]   continue one
//                    connection NUMBER [socket]         somebody asks something; the holder keeps its own copy until `closed`
//                    stop                               unmount and end
//                    reopen                             SIGHUP: open the log file again
//   from the server  keep DEVICE MOUNTPOINT [fuse, state]   from now on this is what the next server continues
//                    listen PATH [socket]               the API socket
//                    running                            connections may be handed on
//                    closed NUMBER                      that connection is finished
//                    exit CODE TEXT                     the daemon has ended, the holder is to end too
#ifndef NYDUS_HOLDER_H
#define NYDUS_HOLDER_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { MAX_MESSAGE = 64 * 1024, MAX_CLIENTS = 256 };

// What a message carries. Words point into `bytes`.
typedef struct {
  char bytes[MAX_MESSAGE + 1];
  size_t length;
  int fds[2]; // -1: none
} Message;

// --- message.c ---
bool message_send(int channel, const char *bytes, size_t length, const int *fds, int count); // never blocks; false when the peer is gone or does not read
int message_receive(int channel, Message *message); // 1: a message; 0: none now; -1: the peer is gone
const char *message_word(const Message *message, int index); // "" when there are fewer

// --- server.c: the process at the other end of the channel ---
typedef struct {
  const char *program; // dist/bundle/nydusd.js
  const char *shared;  // socket of a server of many holders, or NULL: one of our own
  int channel;         // -1: none
  pid_t pid;           // of our own server; 0: none
  int lock;            // held while we start a shared server; -1
} Server;

bool server_connect(Server *server); // a channel, or false: try again a little later
void server_disconnect(Server *server);
int server_wait(Server *server); // exit status of our own server, which has ended or is ended now

// --- clients.c: connections to the API socket ---
void clients_accept(int listener);
int clients_poll(struct pollfd *set); // fills in the idle ones; their number
void clients_ready(const struct pollfd *set, int count, int channel); // hands those that say something to the server
bool clients_full(void);
void clients_closed(int number);
void clients_server_died(void);

int64_t now_ms(void);
void say(const char *text); // a line on stderr

#endif
