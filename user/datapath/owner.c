/* SPDX-License-Identifier: Apache-2.0
 * Who is alive. A daemon makes a folder named after itself below the pins and holds a lock on it: when it dies, however
 * it dies, the lock is free, and whoever can take it knows. The same for the one that reads the ring buffer, which can
 * have only one reader.
 *
 *   /sys/fs/bpf/kvsteer/v2/owners/<16 hex digits>/n<network namespace>   one for each daemon
 *                         /ring                                          its reader
 *
 * Daemons of one network namespace share the pins: one that drains and its successor, or two for good. Those of two
 * cannot: addresses, devices and sockets that the maps name are one namespace's. There the first to come has them.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "datapath/splice_int.h"

static int lock_dir(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r;

	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		return fd;
	r = -errno;
	close(fd);
	return r;
}

static void owner_path(char path[PIN_MAX], const char *dir, uint64_t owner)
{
	snprintf(path, PIN_MAX, "%.200s/owners/%016llx", dir, (unsigned long long)owner);
}

void owner_remove(const char *path)
{
	char sub[2 * PIN_MAX + 2];
	struct dirent *e;
	DIR *d = opendir(path);

	while (d && (e = readdir(d))) {
		snprintf(sub, sizeof(sub), "%s/%.200s", path, e->d_name);
		if (e->d_name[0] != '.')
			rmdir(sub);
	}
	if (d)
		closedir(d);
	rmdir(path);
}

int owner_open(uint64_t owner)
{
	char path[PIN_MAX], sub[PIN_MAX + 32];
	int fd;

	owner_path(path, PIN_DIR, owner);
	snprintf(sub, sizeof(sub), "%s/n%lu", path, netns_id());
	if ((mkdir(PIN_DIR "/owners", 0700) < 0 && errno != EEXIST) || mkdir(path, 0700) < 0)
		return -errno;
	fd = lock_dir(path);
	if (fd >= 0 && mkdir(sub, 0700) < 0) {
		int r = -errno;

		close(fd);
		return r;
	}
	return fd;
}

bool owner_alive(const char *dir, uint64_t owner)
{
	char path[PIN_MAX];
	int fd;

	owner_path(path, dir, owner);
	fd = lock_dir(path);
	if (fd == -ENOENT)
		return false;
	if (fd < 0)
		return true;
	owner_remove(path);
	close(fd);
	return false;
}

static bool owner_is_here(const char *dir, uint64_t owner)
{
	char path[PIN_MAX];
	unsigned long netns;
	struct dirent *e;
	bool here = true; /* until it has said so: it is about to */
	DIR *d;

	owner_path(path, dir, owner);
	d = opendir(path);
	while (d && (e = readdir(d)))
		if (sscanf(e->d_name, "n%lu", &netns) == 1)
			here = netns == netns_id();
	if (d)
		closedir(d);
	return here;
}

unsigned owner_others(const char *dir, uint64_t self)
{
	char path[PIN_MAX];
	struct dirent *e;
	unsigned others = 0;
	DIR *d;

	snprintf(path, sizeof(path), "%.200s/owners", dir);
	d = opendir(path);
	while (d && (e = readdir(d))) {
		uint64_t owner = strtoull(e->d_name, NULL, 16);

		if (e->d_name[0] != '.' && owner != self && owner_alive(dir, owner))
			others |= owner_is_here(dir, owner) ? OWNERS_HERE : OWNERS_AWAY;
	}
	if (d)
		closedir(d);
	return others;
}

void owner_close(uint64_t owner, int fd)
{
	char path[PIN_MAX];

	if (fd < 0)
		return;
	owner_path(path, PIN_DIR, owner);
	owner_remove(path);
	close(fd);
}

int ring_lock(void)
{
	if (mkdir(PIN_DIR "/ring", 0700) < 0 && errno != EEXIST)
		return -errno;
	return lock_dir(PIN_DIR "/ring");
}
