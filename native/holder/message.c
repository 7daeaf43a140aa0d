// Messages between holder and server: a packet of words, with descriptors.
#include "holder.h"
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

typedef union {
  char bytes[CMSG_SPACE(MAX_DESCRIPTORS * sizeof(int))];
  struct cmsghdr aligned;
} Control;

bool message_send(int channel, const char *bytes, size_t length, const int *fds, int count) {
  if (count > MAX_DESCRIPTORS) return false;
  Control control = {0};
  struct iovec vector = {.iov_base = (char *)bytes, .iov_len = length};
  struct msghdr header = {.msg_iov = &vector, .msg_iovlen = 1};
  if (count > 0) {
    header.msg_control = &control;
    header.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
    struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
    memcpy(CMSG_DATA(rights), fds, (size_t)count * sizeof(int));
  }
  ssize_t sent;
  do sent = sendmsg(channel, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
  while (sent < 0 && errno == EINTR);
  return sent == (ssize_t)length;
}

void descriptors_close(Descriptors *target) {
  for (int i = 0; i < target->count; i++)
    if (target->fds[i] >= 0) close(target->fds[i]);
  target->count = 0;
}

int message_take(Message *message, int index) {
  if (index >= message->got.count) return -1;
  int fd = message->got.fds[index];
  message->got.fds[index] = -1;
  return fd;
}

void descriptors_take(Descriptors *target, Message *message, int count) {
  descriptors_close(target);
  while (target->count < count && target->count < message->got.count) {
    target->fds[target->count] = message_take(message, target->count);
    target->count++;
  }
}

int message_receive(int channel, Message *message) {
  descriptors_close(&message->got);
  Control control;
  struct iovec vector = {.iov_base = message->bytes, .iov_len = MAX_MESSAGE};
  struct msghdr header = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  ssize_t length;
  do length = recvmsg(channel, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  while (length < 0 && errno == EINTR);
  if (length < 0) return errno == EAGAIN ? 0 : -1;
  if (length == 0) return -1;
  for (struct cmsghdr *rights = CMSG_FIRSTHDR(&header); rights != NULL; rights = CMSG_NXTHDR(&header, rights)) {
    if (rights->cmsg_level != SOL_SOCKET || rights->cmsg_type != SCM_RIGHTS) continue;
    message->got.count = (int)((rights->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    memcpy(message->got.fds, CMSG_DATA(rights), (size_t)message->got.count * sizeof(int));
  }
  message->length = (size_t)length;
  message->bytes[length] = 0;
  return 1;
}

size_t message_after(const Message *message, int words) {
  size_t at = 0;
  for (; words > 0 && at < message->length; words--) at += strlen(message->bytes + at) + 1;
  return at < message->length ? at : message->length;
}

const char *message_word(const Message *message, int index) { return message->bytes + message_after(message, index); }
