/* SPDX-License-Identifier: Apache-2.0
 * Who is alive. A daemon makes a folder named after itself below the pins and holds a lock on it: when it dies, however
 * it dies, the lock is free, and whoever can take it knows. The same for the one that reads the ring buffer, which can
 * have only one reader.
 *
 *   /sys/fs/bpf/kvsteer/v1/owners/<16 hex digits>   one for each daemon
 *                         /ring                     its reader
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

int owner_open(uint64_t owner)
{
	char path[PIN_MAX];

	owner_path(path, PIN_DIR, owner);
	if ((mkdir(PIN_DIR "/owners", 0700) < 0 && errno != EEXIST) || mkdir(path, 0700) < 0)
		return -errno;
	return lock_dir(path);
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
	rmdir(path);
	close(fd);
	return false;
}

bool owner_any(const char *dir)
{
	char path[PIN_MAX];
	struct dirent *e;
	bool any = false;
	DIR *d;

	snprintf(path, sizeof(path), "%.200s/owners", dir);
	d = opendir(path);
	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.')
			any |= owner_alive(dir, strtoull(e->d_name, NULL, 16));
	if (d)
		closedir(d);
	return any;
}

void owner_close(uint64_t owner, int fd)
{
	char path[PIN_MAX];

	if (fd < 0)
		return;
	owner_path(path, PIN_DIR, owner);
	rmdir(path);
	close(fd);
}

int ring_lock(void)
{
	if (mkdir(PIN_DIR "/ring", 0700) < 0 && errno != EEXIST)
		return -errno;
	return lock_dir(PIN_DIR "/ring");
}
