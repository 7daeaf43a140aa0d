// nydusd-holder: the small process that stands for a daemon. It keeps the daemon's descriptors and state, the API socket and its idle connections and the
// connection of a virtual machine's monitor, and lends them to a server process, which does all the work; when that one dies, the next one goes on.
// src/cli/nydusd/held.ts is the other side.
//
// Messages (SOCK_SEQPACKET; words separated by NUL, descriptors beside them):
//   to the server    start LISTENING GUEST CWD AUTH ARGUMENT…    begin a daemon with these arguments and this IMAGE_PULL_AUTH; LISTENING: 1 when the API
//                                                      socket is there, GUEST: when the socket for monitors is
//                    restore LISTENING GUEST CWD AUTH ARGUMENT… [what was kept, what was kept of the guest]    continue one
//                    connection NUMBER [socket]         somebody asks something; the holder keeps its own copy until `closed`
//                    stop                               unmount and end
//                    reopen                             SIGHUP: open the log file again
//   from the server  keep DEVICE MOUNTPOINT [state, descriptor…]   from now on this is what the next server continues; DEVICE and MOUNTPOINT: what is unmounted at
//                                                      the end, empty for nothing
//                    listen PATH [socket]               the API socket
//                    guest PATH [channel, socket]       the monitor's messages go through `channel` from now on; `socket` (once): where monitors connect
//                    running                            connections may be handed on
//                    closed NUMBER                      that connection is finished
//                    exit CODE TEXT                     the daemon has ended, the holder is to end too
// and on the channel of a guest, one at a time:
//   to the server    message BYTES [descriptor…]        what the monitor says, given again to the next server unless it was answered
//                    gone                               its connection has ended
//   from the server  answer KEPT END BYTES [descriptor…]   the first KEPT descriptors (state first) are what the next server continues, BYTES with the other
//                                                      descriptors are for the monitor, whose connection ends where END is 1: all that or nothing happens
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

enum { MAX_MESSAGE = 64 * 1024, MAX_CLIENTS = 256, MAX_DESCRIPTORS = 128 };

// Descriptors that the next server gets. Those of an array are its owner's.
typedef struct {
  int fds[MAX_DESCRIPTORS];
  int count;
} Descriptors;

// What a message carries. Words point into `bytes`.
typedef struct {
  char bytes[MAX_MESSAGE + 1];
  size_t length;
  Descriptors got; // of the message; what nobody takes over is closed with the next one
} Message;

// --- message.c ---
bool message_send(int channel, const char *bytes, size_t length, const int *fds, int count); // never blocks; false when the peer is gone or does not read
int message_receive(int channel, Message *message); // 1: a message; 0: none now; -1: the peer is gone
const char *message_word(const Message *message, int index); // "" when there are fewer
size_t message_after(const Message *message, int words); // where what follows so many words begins
int message_take(Message *message, int index); // the descriptor is the caller's from now on; -1: there is none
void descriptors_take(Descriptors *target, Message *message, int count); // the first `count` of the message, in place of what the target had
void descriptors_close(Descriptors *target);

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

// --- guest.c: the connection of a virtual machine's monitor (vhost-user) ---
enum { GUEST_POLLS = 3 };
void guest_serve(const char *path, int channel, int listener); // -1: the listener is there already
bool guest_is_listening(void);
const Descriptors *guest_kept(void);
void guest_poll(struct pollfd set[GUEST_POLLS]);
void guest_ready(const struct pollfd set[GUEST_POLLS]);
void guest_server_died(void);
void guest_end(void); // nobody finds the socket any more

int64_t now_ms(void);
void say(const char *text); // a line on stderr

#endif
