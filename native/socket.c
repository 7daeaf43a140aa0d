// Unix sockets as descriptors, and descriptors over them (SCM_RIGHTS).
#include "addon.h"
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { MAX_DESCRIPTORS = 253 }; // the kernel's SCM_MAX_FD

typedef union {
  char bytes[CMSG_SPACE(MAX_DESCRIPTORS * sizeof(int))];
  struct cmsghdr aligned;
} Control;

static napi_value send_fds(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "sendFds");
  int socket = call_int32(&call, 0);
  Bytes bytes = call_bytes(&call, 1);
  Int32s fds = call_int32s(&call, 2);
  if (call.failed) return NULL;
  if (bytes.length == 0 || fds.length > MAX_DESCRIPTORS) return number(env, -EINVAL); // descriptors travel with at least one byte
  Control control = {0};
  struct iovec vector = {.iov_base = bytes.data, .iov_len = bytes.length};
  struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
  if (fds.length > 0) {
    message.msg_control = &control;
    message.msg_controllen = CMSG_SPACE(fds.length * sizeof(int));
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds.length * sizeof(int));
    memcpy(CMSG_DATA(header), fds.data, fds.length * sizeof(int));
  }
  ssize_t size;
  do size = sendmsg(socket, &message, MSG_NOSIGNAL);
  while (size < 0 && errno == EINTR);
  return result_of(env, size);
}

// Descriptors that came are handed out in order; entries without one are -1. More than there is room for: all are closed, -EMSGSIZE.
static napi_value receive_fds(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "receiveFds");
  int socket = call_int32(&call, 0);
  Bytes bytes = call_bytes(&call, 1);
  Int32s fds = call_int32s(&call, 2);
  if (call.failed) return NULL;
  if (bytes.length == 0 || fds.length > MAX_DESCRIPTORS) return number(env, -EINVAL);
  Control control = {0};
  struct iovec vector = {.iov_base = bytes.data, .iov_len = bytes.length};
  struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  ssize_t size;
  do size = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  while (size < 0 && errno == EINTR);
  if (size < 0) return result_of(env, size);
  for (size_t i = 0; i < fds.length; i++) fds.data[i] = -1;
  size_t received = 0;
  bool overflow = (message.msg_flags & MSG_CTRUNC) != 0;
  for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header != NULL; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; i++) {
      int fd;
      memcpy(&fd, CMSG_DATA(header) + i * sizeof fd, sizeof fd);
      if (received < fds.length) {
        fds.data[received++] = fd;
      } else {
        overflow = true;
        close(fd);
      }
    }
  }
  if (!overflow) return number(env, size);
  for (size_t i = 0; i < received; i++) {
    close(fds.data[i]);
    fds.data[i] = -1;
  }
  return number(env, -EMSGSIZE);
}

// A Unix socket, non-blocking, and the address of its path. 0 or -errno.
static int open_socket(Call *call, int *fd, struct sockaddr_un *address) {
  char path[PATH_MAX];
  int error = call_path(call, 0, path);
  bool packets = call_bool(call, 1);
  if (call->failed || error < 0) return error;
  *address = (struct sockaddr_un){.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address->sun_path) return -ENAMETOOLONG;
  strcpy(address->sun_path, path);
  *fd = socket(AF_UNIX, (packets ? SOCK_SEQPACKET : SOCK_STREAM) | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  return *fd < 0 ? -errno : 0;
}

static napi_value result_or_close(napi_env env, int fd, int result) {
  if (result == 0) return number(env, fd);
  int error = errno;
  close(fd);
  return number(env, -error);
}

static napi_value unix_connect(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "unixConnect");
  struct sockaddr_un address;
  int fd, error = open_socket(&call, &fd, &address);
  if (call.failed) return NULL;
  return error < 0 ? number(env, error) : result_or_close(env, fd, connect(fd, (struct sockaddr *)&address, sizeof address));
}

static napi_value unix_listen(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "unixListen");
  struct sockaddr_un address;
  int fd, error = open_socket(&call, &fd, &address);
  if (call.failed) return NULL;
  if (error < 0) return number(env, error);
  int result = bind(fd, (struct sockaddr *)&address, sizeof address);
  return result_or_close(env, fd, result == 0 ? listen(fd, SOMAXCONN) : result);
}

static napi_value unix_accept(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "unixAccept");
  int fd = call_int32(&call, 0);
  return call.failed ? NULL : result_of(env, accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK));
}

static napi_value socket_pair(napi_env env, napi_callback_info info) {
  Call call = call_begin(env, info, "socketPair");
  bool packets = call_bool(&call, 0);
  Int32s ends = call_int32s(&call, 1);
  if (call.failed) return NULL;
  if (ends.length < 2) return number(env, -EINVAL);
  return result_of(env, socketpair(AF_UNIX, (packets ? SOCK_SEQPACKET : SOCK_STREAM) | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data));
}

void socket_register(napi_env env, napi_value exports) {
  export_function(env, exports, "unixConnect", unix_connect);
  export_function(env, exports, "unixListen", unix_listen);
  export_function(env, exports, "unixAccept", unix_accept);
  export_function(env, exports, "socketPair", socket_pair);
  export_function(env, exports, "sendFds", send_fds);
  export_function(env, exports, "receiveFds", receive_fds);
}
