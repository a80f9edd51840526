/* SPDX-License-Identifier: Apache-2.0
 * A pods file, watched. The watch is on its directory: editors and ConfigMaps replace the file by a rename (of itself
 * or of a link on its way), which a watch on the file would lose. What counts is whether the file is another one now
 * (device, inode, time, size); the events only say when to look, and a slow timer looks too, for directories that come
 * later and for file systems without events.
 */
#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/time.h"
#include "discovery/discovery_int.h"

#define SETTLE_NS (50 * NS_PER_MS)
#define SLOW_NS	  (5 * NS_PER_S)

struct watch {
	struct source *s;
	const char *file;
	char *dir;
	int wd;
	struct loop_fd in;
	struct loop_timer look;
	bool seen;
	struct stat last;
};

static bool same(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
	       a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static void load(struct watch *w)
{
	struct config_pod *pods;
	struct buf err = { 0 };
	char line[256];
	struct stat st;
	unsigned n;
	int r;

	if (stat(w->file, &st)) {
		snprintf(line, sizeof(line), "%.150s: %s", w->file, strerror(errno));
		source_problem(w->s, line);
		w->seen = false;
		return;
	}
	if (w->seen && same(&st, &w->last))
		return;
	w->seen = true;
	w->last = st;
	r = config_load_pods(w->file, &pods, &n, &err);
	if (!r) {
		source_pods(w->s, pods, n);
	} else {
		struct str t = buf_str(&err);
		const char *nl = t.n ? memchr(t.p, '\n', t.n) : NULL;

		if (t.n)
			snprintf(line, sizeof(line), "%.*s", (int)(nl ? nl - t.p : (ptrdiff_t)t.n), t.p);
		else
			snprintf(line, sizeof(line), "%.150s: %s", w->file, strerror(-r));
		source_problem(w->s, line);
	}
	buf_free(&err);
}

static void look(struct loop_timer *t)
{
	struct watch *w = container_of(t, struct watch, look);

	if (w->wd < 0)
		w->wd = inotify_add_watch(w->in.fd, w->dir,
					  IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_DELETE_SELF |
						  IN_MOVE_SELF | IN_ATTRIB | IN_ONLYDIR);
	load(w);
	(void)loop_timer_set(w->s->d->loop, &w->look, loop_now(w->s->d->loop) + SLOW_NS);
}

static void ready(struct loop_fd *f, uint32_t events)
{
	struct watch *w = container_of(f, struct watch, in);
	_Alignas(struct inotify_event) char b[4096];
	ssize_t n;

	while ((n = read(f->fd, b, sizeof(b))) > 0) {
		for (char *p = b; p < b + n; p += sizeof(struct inotify_event) + ((struct inotify_event *)p)->len) {
			const struct inotify_event *e = (const struct inotify_event *)p;

			if (e->wd == w->wd && e->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED)) {
				if (!(e->mask & IN_IGNORED))
					inotify_rm_watch(f->fd, w->wd);
				w->wd = -1;
			}
		}
	}
	/* A writer may not be finished yet. */
	(void)loop_timer_set(w->s->d->loop, &w->look, loop_now(w->s->d->loop) + SETTLE_NS);
}

struct watch *watch_start(struct source *s, const char *file)
{
	struct watch *w = calloc(1, sizeof(*w));
	char *copy = strdup(file);
	int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC), r;

	if (w && copy)
		w->dir = strdup(dirname(copy));
	free(copy);
	if (!w || !w->dir || fd < 0) {
		r = fd < 0 ? errno : ENOMEM;
		goto fail;
	}
	w->s = s;
	w->file = file;
	w->wd = -1;
	w->in = (struct loop_fd){ .ready = ready, .fd = -1 };
	loop_timer_init(&w->look, look);
	r = -loop_fd_add(s->d->loop, &w->in, fd, EPOLLIN);
	if (!r) {
		look(&w->look);
		return w;
	}
fail:
	if (fd >= 0)
		close(fd);
	free(w ? w->dir : NULL);
	free(w);
	errno = r;
	return NULL;
}

void watch_stop(struct watch *w)
{
	int fd;

	if (!w)
		return;
	fd = w->in.fd;
	loop_timer_del(w->s->d->loop, &w->look);
	loop_fd_del(&w->in);
	close(fd);
	free(w->dir);
	free(w);
}
