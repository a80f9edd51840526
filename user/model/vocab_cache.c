/* SPDX-License-Identifier: Apache-2.0
 * Compiled vocabularies in a directory, named by a sum over the files that they were made from: a changed file is
 * another name. A compiled file is written beside and renamed, never changed in place, since it is mapped by who uses
 * it. What is found damaged is compiled anew.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/vocab_int.h"

#define SUFFIX ".vocab"

static int say(char *err, size_t err_len, int r, const char *what, const char *why)
{
	if (err_len)
		snprintf(err, err_len, "%s: %s", what, why);
	errno = -r;
	return r;
}

/* A file's bytes, mapped; {NULL, 0} and errno. An empty one is {"", 0}. */
static struct str map_file(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), err;
	struct str s = { NULL, 0 };
	struct stat st;
	void *p;

	if (fd < 0)
		return s;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
		if (st.st_size == 0) {
			s.p = "";
		} else {
			p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
			if (p != MAP_FAILED)
				s = (struct str){ p, (size_t)st.st_size };
		}
	} else {
		errno = EINVAL;
	}
	err = errno;
	close(fd);
	errno = err;
	return s;
}

static void unmap(struct str s)
{
	if (s.n)
		munmap((void *)s.p, s.n);
}

/* Of what a vocabulary is made from. 0, or a negative errno when there is no tokenizer.json. */
static int source_sum(const char *dir, uint64_t ret[2])
{
	static const char *const names[] = { "tokenizer.json", "tokenizer_config.json" };
	uint64_t sum[2][2] = { { 0 } };

	for (int i = 0; i < 2; i++) {
		char path[4096];
		struct str s;

		if (snprintf(path, sizeof(path), "%s/%s", dir, names[i]) >= (int)sizeof(path))
			return -ENAMETOOLONG;
		s = map_file(path);
		if (!s.p && i == 0)
			return -errno;
		if (s.p)
			image_sum(s.p, s.n, sum[i]);
		unmap(s);
	}
	image_sum(sum, sizeof(sum), ret);
	return 0;
}

struct vocab *vocab_open(const char *path, char *err, size_t err_len)
{
	struct str s = map_file(path);
	const char *why;

	if (!s.p) {
		say(err, err_len, -errno, path, strerror(errno));
		return NULL;
	}
	why = image_check((const struct image *)(const void *)s.p, s.n);
	if (why) {
		unmap(s);
		say(err, err_len, -EBADMSG, path, why);
		return NULL;
	}
	return vocab_adopt((const struct image *)(const void *)s.p, true);
}

static int write_all(int fd, const char *p, size_t n)
{
	while (n) {
		ssize_t got = write(fd, p, n);

		if (got < 0 && errno != EINTR)
			return -errno;
		if (got > 0) {
			p += got;
			n -= (size_t)got;
		}
	}
	return 0;
}

static int store(const struct image *g, const char *path)
{
	char tmp[4200];
	int fd, r;

	snprintf(tmp, sizeof(tmp), "%s.XXXXXX", path);
	fd = mkostemp(tmp, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = write_all(fd, (const char *)g, g->bytes);
	if (!r && fchmod(fd, 0644) < 0)
		r = -errno;
	if (close(fd) < 0 && !r)
		r = -errno;
	if (!r && rename(tmp, path) < 0)
		r = -errno;
	if (r)
		unlink(tmp);
	return r;
}

struct vocab *vocab_load(const char *dir, const char *cache, char *err, size_t err_len)
{
	uint64_t source[2] = { 0 };
	char path[4100] = "";
	struct vocab *v;
	struct image *g;

	/* Where there is no tokenizer.json, compiling says so. */
	if (source_sum(dir, source) == 0 && cache &&
	    snprintf(path, sizeof(path), "%s/%016llx%016llx" SUFFIX, cache, (unsigned long long)source[0],
		     (unsigned long long)source[1]) < 4096) {
		v = vocab_open(path, err, err_len);
		if (v && memcmp(v->img->source, source, sizeof(source)) == 0)
			return v;
		vocab_unref(v);
	}
	g = image_compile(dir, source, err, err_len);
	if (!g)
		return NULL;
	if (*path) { /* not kept, it is compiled again next time */
		(void)mkdir(cache, 0755);
		(void)store(g, path);
	}
	return vocab_adopt(g, false);
}
