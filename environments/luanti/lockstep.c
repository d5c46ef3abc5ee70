/* Preloaded into the game: its clock and its frames belong to the program at the other end of a socket.

   At first the clock is the real one and frames pass. Once `locked` is set, every frame is copied into shared memory
   when it is finished, one byte says so, and the game waits for one byte back; each such frame is `frame_ns` of game
   time, however long it took. Whoever holds the other end decides how fast time goes, and when that end closes the game
   ends too.

   Built by lockstep.py, which mirrors `struct shared`. Needs no headers of X or OpenGL. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define GL_RGB 0x1907
#define GL_UNSIGNED_BYTE 0x1401
#define GL_PACK_ALIGNMENT 0x0D05
#define MS 1000000L

struct shared {
  _Atomic uint32_t locked;         /* written by the other end */
  _Atomic uint32_t cursor_visible; /* a menu is open */
  uint32_t width, height;          /* of the frame */
  uint64_t frame_ns;               /* game time of a frame */
  unsigned char pixels[];          /* height x width x 3, bottom row first */
};

static struct shared *shared;
static int peer = -1;
static _Atomic int64_t now_ns; /* the game's clock while locked, 0 before */

static void *original(const char *name) {
  void *found = dlsym(RTLD_NEXT, name);
  if (!found) _exit(127);
  return found;
}

static int64_t real_ns(clockid_t clock) {
  struct timespec time;
  syscall(SYS_clock_gettime, clock, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

__attribute__((constructor)) static void attach(void) {
  const char *memory = getenv("REVERIE_LOCKSTEP_MEMORY"), *descriptor = getenv("REVERIE_LOCKSTEP_SOCKET");
  struct stat status;
  if (!memory || !descriptor) return;
  int file = open(memory, O_RDWR | O_CLOEXEC);
  if (file < 0 || fstat(file, &status)) _exit(127);
  shared = mmap(NULL, status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (shared == MAP_FAILED) _exit(127);
  close(file);
  peer = atoi(descriptor);
}

/* The game measures time by this clock only; libraries use others, which stay real. */
int clock_gettime(clockid_t clock, struct timespec *time) {
  int64_t now = clock == CLOCK_MONOTONIC_RAW ? atomic_load(&now_ns) : 0;
  if (!now) return (int)syscall(SYS_clock_gettime, clock, time);
  time->tv_sec = now / 1000000000;
  time->tv_nsec = now % 1000000000;
  return 0;
}

/* Two waits of the game do not fit a clock that stands still. The server waits up to 50 ms for a packet before it looks at
   its clock again: two will do. And whoever needs a texture gives the drawing thread, which may be waiting for
   us, one second: it gets as long as it takes. */
int sem_timedwait(sem_t *semaphore, const struct timespec *until) {
  static int (*wait)(sem_t *, const struct timespec *);
  if (!wait) wait = original("sem_timedwait");
  if (!atomic_load(&now_ns)) return wait(semaphore, until);
  int64_t now = real_ns(CLOCK_REALTIME);
  int64_t asked = (int64_t)until->tv_sec * 1000000000 + until->tv_nsec - now;
  int64_t given = asked < 100 * MS ? (asked < 2 * MS ? asked : 2 * MS) : asked < 500 * MS ? asked : 3600000 * MS;
  struct timespec end = {(now + given) / 1000000000, (now + given) % 1000000000};
  return wait(semaphore, &end);
}

static void copy_frame(void) {
  static void (*read_pixels)(int, int, int, int, unsigned, unsigned, void *);
  static void (*pixel_store)(unsigned, int);
  if (!read_pixels) {
    read_pixels = original("glReadPixels");
    pixel_store = original("glPixelStorei");
  }
  pixel_store(GL_PACK_ALIGNMENT, 1);
  read_pixels(0, 0, shared->width, shared->height, GL_RGB, GL_UNSIGNED_BYTE, shared->pixels);
  pixel_store(GL_PACK_ALIGNMENT, 4);
}

static void exchange(void) {
  char byte = 'f';
  ssize_t done;
  do done = write(peer, &byte, 1);
  while (done < 0 && errno == EINTR);
  if (done == 1) {
    do done = read(peer, &byte, 1);
    while (done < 0 && errno == EINTR);
  }
  if (done != 1) _exit(0); /* the other end is gone */
}

void glXSwapBuffers(void *display, unsigned long drawable) {
  static void (*swap)(void *, unsigned long);
  static int (*sync)(void *, int);
  if (!swap) {
    swap = original("glXSwapBuffers");
    sync = original("XSync");
  }
  if (!shared || !atomic_load(&shared->locked)) {
    swap(display, drawable);
    return;
  }
  copy_frame();
  swap(display, drawable);
  sync(display, 0); /* the game has moved the pointer before we move it */
  if (!atomic_load(&now_ns)) atomic_store(&now_ns, real_ns(CLOCK_MONOTONIC_RAW));
  exchange();
  atomic_fetch_add(&now_ns, (int64_t)shared->frame_ns);
}

int XDefineCursor(void *display, unsigned long window, unsigned long cursor) {
  static int (*define)(void *, unsigned long, unsigned long);
  if (!define) define = original("XDefineCursor");
  if (shared) atomic_store(&shared->cursor_visible, 0);
  return define(display, window, cursor);
}

int XUndefineCursor(void *display, unsigned long window) {
  static int (*undefine)(void *, unsigned long);
  if (!undefine) undefine = original("XUndefineCursor");
  if (shared) atomic_store(&shared->cursor_visible, 1);
  return undefine(display, window);
}
