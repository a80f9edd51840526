/* SPDX-License-Identifier: Apache-2.0
 * The index on disk, so that a gateway that starts again need not begin with nothing.
 *
 *   head | section of a stream | section | …        a section: who it is of, where its events stood, index_save's
 * records
 *
 * Saving. One stream at a time is copied by the events thread, between two batches, so cursor and blocks belong
 * together: a millisecond or two for 60,000 blocks. A thread that lives as long as one save writes what was copied,
 * sums and syncs it, and gives the file its name when it is whole. There is one copy at a time. At the end of the
 * process all of it is written at once, unless nothing was applied since: a start that fails, or a process that ends
 * before it knows its pods, leaves the file as it was. While pods may still come for what was taken in, the sections of
 * those that have not are copied into the new file.
 *
 * Two processes may overlap: who writes holds a lock on the file that has no name yet, and the other's save fails.
 *
 * Loading. A file is looked at when the process starts: magic, schema, lengths, sums; it is taken as a whole or not at
 * all. Its secrets are the new index's, its sections wait in memory. A pod that is followed finds its own by name,
 * rank, vocabulary; with them the cursor, so that it is asked for what came behind, first for the batch that was the
 * last: the same contents prove that it is the same process (follow.c). Until then its blocks are stale. What does not
 * prove itself, and all that is still stale or unasked for when <stale_ns> are over, goes.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/rand.h"
#include "events/events_int.h"

#define MAGIC	   "KVSINDEX"
#define SCHEMA	   1
#define BASE_MAX   256
#define PACE_NS	   (20 * NS_PER_MS)
#define SUM_SEED   UINT64_C(0x6b76696e646578)
#define NAME_BYTES 64

struct head {
	char magic[8];
	uint32_t schema, sections;
	uint64_t bytes; /* of the file */
	int64_t written;
	uint64_t base, key;
	uint64_t sums; /* of the sections' */
	uint64_t sum;  /* of what is before */
};

struct section {
	uint64_t sum;	/* of all behind this field */
	uint64_t bytes; /* of all, with the records */
	char pod[NAME_BYTES], vocab[40], base[BASE_MAX];
	uint32_t rank, window;
	uint64_t cursor, recent;
	uint64_t group_main, group_other;
	int64_t window_group;
};
_Static_assert(sizeof(struct head) % 8 == 0 && sizeof(struct section) % 8 == 0, "records are aligned");
_Static_assert(POD_NAME_MAX <= NAME_BYTES && VOCAB_SOURCE <= 40, "names fit");

struct index_file {
	char *mem;
	size_t bytes;
};

struct keep {
	char *path, *tmp;
	uint64_t every_ns;
	struct events_keep given; /* for the pods that come */
	struct loop_timer due, stale;
	struct events *e;
	uint64_t batches; /* applied when the last save that went well began, or at the start */
	uint64_t begun;	  /* applied when this save began */
	/* a save: the streams that are still to be copied, and what the thread has not written yet */
	bool saving;
	struct follow *at;
	unsigned rank;
	size_t taken; /* of <given.from>: what is before was copied */
	pthread_t writer;
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct buf copy;
	bool full, last;
	_Atomic bool done;
	int fd, err;
	struct head head;
};

/* --- reading --- */

static const struct section *section_at(const struct index_file *f, size_t at)
{
	const struct section *s = (const struct section *)(const void *)(f->mem + at);

	if (f->bytes - at < sizeof(*s) || s->bytes < sizeof(*s) || s->bytes > f->bytes - at || s->bytes % 8)
		return NULL;
	return s;
}

static uint64_t section_sum(const struct section *s)
{
	return hash_bytes((const char *)s + sizeof(s->sum), s->bytes - sizeof(s->sum), SUM_SEED);
}

static const char *file_check(const struct index_file *f)
{
	const struct head *h = (const struct head *)(const void *)f->mem;
	size_t at = sizeof(*h);
	uint64_t sums = 0;

	if (f->bytes < sizeof(*h) || memcmp(h->magic, MAGIC, sizeof(h->magic)) != 0)
		return "it is no kept index";
	if (h->schema != SCHEMA)
		return "another version of kvsteerd wrote it";
	if (h->sum != hash_bytes(h, offsetof(struct head, sum), SUM_SEED) || h->bytes != f->bytes)
		return "its head is damaged, or it was cut off";
	for (uint32_t i = 0; i < h->sections; i++) {
		const struct section *s = section_at(f, at);

		if (!s || s->sum != section_sum(s) || !memchr(s->pod, 0, sizeof(s->pod)) ||
		    !memchr(s->vocab, 0, sizeof(s->vocab)) || !memchr(s->base, 0, sizeof(s->base)))
			return "a part of it is damaged";
		sums = mix64(sums ^ s->sum);
		at += s->bytes;
	}
	return at == f->bytes && sums == h->sums ? NULL : "it is not whole";
}

void index_file_close(struct index_file *f)
{
	if (!f)
		return;
	free(f->mem);
	free(f);
}

/* Read, not mapped: who cuts the file off must not end the process. What is missing fails the check. */
static int file_read(int fd, size_t n, struct index_file **ret)
{
	struct index_file *f = calloc(1, sizeof(*f));

	if (f)
		f->mem = malloc(n);
	while (f && f->mem && f->bytes < n) {
		ssize_t k = read(fd, f->mem + f->bytes, n - f->bytes);

		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0) {
			int e = errno;

			index_file_close(f);
			return e;
		}
		if (k == 0)
			break;
		f->bytes += (size_t)k;
	}
	if (!f || !f->mem) {
		free(f);
		return ENOMEM;
	}
	*ret = f;
	return 0;
}

struct index_file *index_file_open(const char *path, struct index_secrets *ret, int64_t *ret_written, char *why,
				   size_t n)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), e;
	struct index_file *f = NULL;
	const char *bad = NULL;
	struct stat st;

	if (fd < 0 || fstat(fd, &st)) {
		e = errno;
	} else if (!S_ISREG(st.st_mode) || st.st_size < (off_t)sizeof(struct head)) {
		e = EBADMSG;
		bad = "it is no kept index";
	} else {
		e = file_read(fd, (size_t)st.st_size, &f);
	}
	if (fd >= 0)
		close(fd);
	if (f) {
		bad = file_check(f);
		if (!bad) {
			const struct head *h = (const struct head *)(const void *)f->mem;

			*ret = (struct index_secrets){ h->base, h->key };
			*ret_written = h->written;
			return f;
		}
		index_file_close(f);
		e = EBADMSG;
	}
	snprintf(why, n, "%s: %s", path, bad ? bad : strerror(e));
	errno = e;
	return NULL;
}

/* --- loading --- */

static const struct section *section_find(const struct index_file *f, const struct stream *s)
{
	const struct head *h = (const struct head *)(const void *)f->mem;
	size_t at = sizeof(*h);

	for (uint32_t i = 0; i < h->sections; i++) {
		const struct section *x = section_at(f, at);

		if (x->rank == s->rank && strcmp(x->pod, s->f->pod->name) == 0)
			return x;
		at += x->bytes;
	}
	return NULL;
}

void keep_load(struct stream *s)
{
	struct keep *k = s->f->e->keep;
	const struct section *x = k && k->given.from ? section_find(k->given.from, s) : NULL;
	char vocab[VOCAB_SOURCE], *base;
	int r;

	if (!x || !s->f->vocab)
		return;
	vocab_source(s->f->vocab, vocab);
	base = strdup(x->base);
	if (strcmp(vocab, x->vocab) != 0 || !base) {
		free(base);
		return;
	}
	r = index_load(s->f->e->x, s->holder, x + 1, x->bytes - sizeof(*x));
	if (r && r != -ENOMEM) {
		free(base);
		return;
	}
	/* What the pod's model is called is known later: then it is compared with this. */
	free(s->f->base);
	s->f->base = base;
	s->have = s->warm = true;
	s->cursor = x->cursor;
	s->recent[s->cursor % RECENT] = x->recent;
	s->group_main = x->group_main;
	s->group_other = x->group_other;
	s->window = x->window;
	s->window_group = x->window_group;
	s->stale = STALE_SUSPECT;
	stats_inc(s->f->e->st, STATS_INDEX_LOADED);
}

static void stale_over(struct loop_timer *t)
{
	struct keep *k = container_of(t, struct keep, stale);

	index_file_close(k->given.from);
	k->given.from = NULL;
	list_for_each (it, &k->e->pods) {
		struct follow *f = container_of(it, struct follow, link);

		for (unsigned i = 0; i < f->nranks; i++)
			if (f->s[i].warm)
				stream_cool(&f->s[i]);
	}
}

/* --- saving --- */

static int put_section(struct keep *k, const struct stream *s, struct buf *to)
{
	struct section *x, head = { .rank = s->rank,
				    .window = s->window,
				    .cursor = s->cursor,
				    .recent = s->recent[s->cursor % RECENT],
				    .group_main = s->group_main,
				    .group_other = s->group_other,
				    .window_group = s->window_group };
	int r;

	str_copy(head.pod, sizeof(head.pod), s->f->pod->name);
	str_copy(head.base, sizeof(head.base), s->f->base);
	vocab_source(s->f->vocab, head.vocab);
	r = buf_put(to, &head, sizeof(head));
	if (!r)
		r = index_save(k->e->x, s->holder, to);
	if (r)
		return r;
	x = (struct section *)(void *)buf_data(to);
	x->bytes = buf_len(to);
	return 0;
}

/* Of a stream whose blocks may be lost without our knowing nothing is kept. */
static bool is_worth(const struct stream *s)
{
	return s->have && s->f->vocab && !(s->stale & STALE_GAP) && !s->replaying && !s->void_replay &&
	       strlen(s->f->base) < BASE_MAX;
}

static int write_all(int fd, const char *p, size_t n)
{
	while (n) {
		ssize_t w = write(fd, p, n);

		if (w < 0 && errno != EINTR)
			return -errno;
		if (w > 0) {
			p += w;
			n -= (size_t)w;
		}
	}
	return 0;
}

static int write_section(struct keep *k, struct buf *b)
{
	struct section *x = (struct section *)(void *)buf_data(b);

	x->sum = section_sum(x);
	k->head.sums = mix64(k->head.sums ^ x->sum);
	k->head.sections++;
	k->head.bytes += x->bytes;
	return write_all(k->fd, buf_data(b), buf_len(b));
}

/* Empty, ours alone by its lock, and still what <path> names. */
static int tmp_open(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600), r = 0;
	struct stat a, b;

	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK)
		r = -EBUSY; /* where there are no locks it is written all the same */
	else if (fstat(fd, &a) || lstat(path, &b) || ftruncate(fd, 0))
		r = -errno;
	else if (a.st_dev != b.st_dev || a.st_ino != b.st_ino)
		r = -EBUSY; /* renamed by who had the lock */
	if (!r)
		return fd;
	close(fd);
	return r;
}

static int file_begin(struct keep *k)
{
	struct index_secrets s;
	int r;

	index_secrets_of(k->e->x, &s);
	k->head = (struct head){ .schema = SCHEMA, .bytes = sizeof(k->head), .base = s.base, .key = s.key };
	memcpy(k->head.magic, MAGIC, sizeof(k->head.magic));
	k->head.written = (int64_t)time(NULL);
	r = tmp_open(k->tmp);
	k->fd = r < 0 ? -1 : r;
	return r < 0 ? r : write_all(k->fd, (char *)&k->head, sizeof(k->head));
}

static int file_end(struct keep *k, int r)
{
	char head[sizeof(k->head)];

	k->head.sum = hash_bytes(&k->head, offsetof(struct head, sum), SUM_SEED);
	memcpy(head, &k->head, sizeof(head));
	if (!r && pwrite(k->fd, head, sizeof(head), 0) != (ssize_t)sizeof(head))
		r = -EIO;
	if (!r && fsync(k->fd))
		r = -errno;
	if (!r && rename(k->tmp, k->path))
		r = -errno;
	if (k->fd < 0)
		return r;
	if (r)
		unlink(k->tmp);
	close(k->fd); /* last: it is the lock */
	return r;
}

static void *write_on(void *arg)
{
	struct keep *k = arg;
	struct buf b = { 0 };
	bool last = false;
	int r = file_begin(k);

	while (!last) {
		pthread_mutex_lock(&k->lock);
		while (!k->full && !k->last)
			pthread_cond_wait(&k->more, &k->lock);
		b = k->copy;
		k->copy = (struct buf){ 0 };
		last = !k->full;
		k->full = false;
		pthread_mutex_unlock(&k->lock);
		if (!r && !last)
			r = write_section(k, &b);
		buf_free(&b);
	}
	k->err = file_end(k, r);
	atomic_store(&k->done, true);
	return NULL;
}

static void hand_over(struct keep *k, struct buf *b)
{
	pthread_mutex_lock(&k->lock);
	if (b)
		k->copy = *b;
	k->full |= b != NULL;
	k->last |= b == NULL;
	pthread_cond_signal(&k->more);
	pthread_mutex_unlock(&k->lock);
}

static bool writer_is_busy(struct keep *k)
{
	bool busy;

	pthread_mutex_lock(&k->lock);
	busy = k->full;
	pthread_mutex_unlock(&k->lock);
	return busy;
}

static uint64_t batches(const struct keep *k)
{
	return atomic_load_explicit(&k->e->st->v[STATS_EVENT_BATCHES], memory_order_relaxed);
}

static void save_over(struct keep *k)
{
	pthread_join(k->writer, NULL);
	k->saving = false;
	stats_inc(k->e->st, k->err ? STATS_INDEX_SAVE_FAIL : STATS_INDEX_SAVED);
	if (!k->err)
		k->batches = k->begun;
}

static void save_begin(struct keep *k)
{
	k->last = k->full = false;
	atomic_store(&k->done, false);
	k->at = list_empty(&k->e->pods) ? NULL : container_of(k->e->pods.next, struct follow, link);
	k->rank = 0;
	k->taken = sizeof(struct head);
	k->begun = batches(k);
	k->saving = pthread_create(&k->writer, NULL, write_on, k) == 0;
	if (!k->saving)
		stats_inc(k->e->st, STATS_INDEX_SAVE_FAIL);
}

/* The next stream that is worth it, NULL: none is left. */
static struct stream *save_next(struct keep *k)
{
	while (k->at) {
		struct follow *f = k->at;

		while (k->rank < f->nranks) {
			struct stream *s = &f->s[k->rank++];

			if (is_worth(s))
				return s;
		}
		k->rank = 0;
		k->at = f->link.next == &k->e->pods ? NULL : container_of(f->link.next, struct follow, link);
	}
	return NULL;
}

void keep_forget(struct follow *f)
{
	struct keep *k = f->e->keep;

	if (!k || k->at != f)
		return;
	k->rank = 0;
	k->at = f->link.next == &k->e->pods ? NULL : container_of(f->link.next, struct follow, link);
}

static bool is_followed(const struct keep *k, const struct section *x)
{
	list_for_each (it, &k->e->pods) {
		const struct follow *f = container_of(it, struct follow, link);

		if (x->rank < f->nranks && strcmp(f->pod->name, x->pod) == 0)
			return true;
	}
	return false;
}

/* The next section: first those of pods that may still come. Whether there is one. */
static bool section_next(struct keep *k, struct buf *to)
{
	const struct index_file *from = k->given.from;
	struct stream *s;

	while (from && k->taken < from->bytes) {
		const struct section *x = section_at(from, k->taken);

		k->taken += x->bytes;
		if (!is_followed(k, x) && buf_put(to, x, x->bytes) == 0)
			return true;
	}
	while ((s = save_next(k))) {
		if (put_section(k, s, to) == 0)
			return true;
		buf_free(to);
	}
	return false;
}

static void save_step(struct keep *k)
{
	struct buf b = { 0 };

	if (!writer_is_busy(k) && !k->last)
		hand_over(k, section_next(k, &b) ? &b : NULL);
}

/* What is left of a save, at once. */
static void save_rest(struct keep *k)
{
	while (!k->last) {
		save_step(k);
		usleep(1000);
	}
	save_over(k);
}

static void due(struct loop_timer *t)
{
	struct keep *k = container_of(t, struct keep, due);
	uint64_t wait = PACE_NS;

	if (!k->saving && batches(k) != k->batches)
		save_begin(k);
	if (k->saving && atomic_load(&k->done))
		save_over(k);
	else if (k->saving)
		save_step(k);
	if (!k->saving)
		wait = k->every_ns;
	(void)loop_timer_set(k->e->loop, t, loop_now(k->e->loop) + wait);
}

/* --- its life --- */

static void keep_free(struct keep *k)
{
	loop_timer_del(k->e->loop, &k->due);
	loop_timer_del(k->e->loop, &k->stale);
	pthread_mutex_destroy(&k->lock);
	pthread_cond_destroy(&k->more);
	free(k->path);
	free(k->tmp);
	free(k);
}

int keep_start(struct events *e, const struct events_keep *given)
{
	struct keep *k = calloc(1, sizeof(*k));
	size_t n = strlen(given->path);
	int r;

	if (!k)
		return -ENOMEM;
	k->e = e;
	k->given = *given;
	k->every_ns = given->every_ns;
	k->batches = batches(k);
	pthread_mutex_init(&k->lock, NULL);
	pthread_cond_init(&k->more, NULL);
	loop_timer_init(&k->due, due);
	loop_timer_init(&k->stale, stale_over);
	k->path = strdup(given->path);
	k->tmp = malloc(n + 5);
	r = k->path && k->tmp ? 0 : -ENOMEM;
	if (!r) {
		snprintf(k->tmp, n + 5, "%s.new", given->path);
		r = loop_timer_set(e->loop, &k->due, time_mono() + k->every_ns);
	}
	if (!r)
		r = loop_timer_set(e->loop, &k->stale, time_mono() + given->stale_ns);
	if (r)
		keep_free(k);
	else
		e->keep = k;
	return r;
}

void keep_cancel(struct events *e)
{
	if (e->keep)
		keep_free(e->keep);
	e->keep = NULL;
}

/* The thread is over; the streams are still there. */
void keep_stop(struct events *e)
{
	struct keep *k = e->keep;

	if (!k)
		return;
	if (k->saving)
		save_rest(k);
	if (batches(k) != k->batches)
		save_begin(k);
	if (k->saving)
		save_rest(k);
	e->keep = NULL;
	index_file_close(k->given.from);
	keep_free(k);
}
