/* SPDX-License-Identifier: Apache-2.0
 * Replays a corpus through a fuzzer's entry point where libFuzzer is not there: every file of the folders and files
 * given, whole. Each input lies in a block of exactly its size, so that a read beyond it is seen.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned inputs;

static int replay_file(const char *path, size_t size)
{
	uint8_t *data = malloc(size ? size : 1);
	FILE *f = fopen(path, "rb");
	size_t n = 0;

	if (data && f)
		n = fread(data, 1, size, f);
	if (f)
		fclose(f);
	if (!data || !f || n != size) {
		free(data);
		fprintf(stderr, "cannot read %s\n", path);
		return -1;
	}
	LLVMFuzzerTestOneInput(data, size);
	inputs++;
	free(data);
	return 0;
}

static int replay(const char *path)
{
	struct dirent *e;
	struct stat st;
	DIR *d;
	int r = 0;

	if (stat(path, &st) < 0) {
		perror(path);
		return -1;
	}
	if (!S_ISDIR(st.st_mode))
		return replay_file(path, (size_t)st.st_size);
	d = opendir(path);
	while (d && !r && (e = readdir(d))) {
		char name[4096];

		if (e->d_name[0] == '.')
			continue;
		snprintf(name, sizeof(name), "%s/%s", path, e->d_name);
		r = replay(name);
	}
	if (d)
		closedir(d);
	return r;
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (replay(argv[i]))
			return 1;
	printf("%u inputs\n", inputs);
	return inputs ? 0 : 1;
}
