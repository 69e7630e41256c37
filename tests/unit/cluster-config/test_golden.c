/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tests/unit/cluster-config/test_golden.c - every golden/bad-X.yaml must be refused with exactly
 *            golden/bad-X.txt.
 *
 * What      A new case is two files; the expected text is written by hand or looked at line by
 *           line.
 */
#include "cluster-config/topology.h"

#include <criterion/criterion.h>
#include <glob.h>
#include <libgen.h>
#include <string.h>
#include <unistd.h>

#define CASES_MIN 30u /* so that a lost folder is not a success */

static char *file_text(const char *path)
{
	FILE *f = fopen(path, "r");
	char *text = NULL;
	size_t len = 0;

	if (!f)
		return NULL;
	if (getdelim(&text, &len, EOF, f) < 0 && text)
		text[0] = 0;
	fclose(f);
	return text;
}

static void golden_enter(void)
{
	char path[] = __FILE__;

	cr_assert_eq(chdir(dirname(path)), 0);
	cr_assert_eq(chdir("golden"), 0);
}

static char *errors_of(const char *file)
{
	struct cc_topology *t = NULL;
	char *text = NULL;
	size_t len;
	FILE *errors = open_memstream(&text, &len);
	int err = cc_topology_load(file, errors, &t);

	fclose(errors);
	cr_expect_eq(err, -EINVAL, "%s: got %d", file, err);
	cr_expect_null(t, "%s: a topology came out", file);
	cc_topology_free(t);
	return text;
}

Test(golden, every_bad_file_is_refused_with_its_text)
{
	glob_t found;

	golden_enter();
	cr_assert_eq(glob("bad-*.yaml", 0, NULL, &found), 0);
	cr_assert_geq(found.gl_pathc, CASES_MIN);
	for (size_t i = 0; i < found.gl_pathc; i++) {
		char expected_path[256];
		char *expected, *got = errors_of(found.gl_pathv[i]);

		snprintf(expected_path, sizeof(expected_path), "%.*s.txt",
			 (int)(strlen(found.gl_pathv[i]) - 5), found.gl_pathv[i]);
		expected = file_text(expected_path);
		cr_assert_not_null(expected, "%s is missing", expected_path);
		cr_expect_str_eq(got, expected, "%s:\n--- got\n%s--- expected\n%s",
				 found.gl_pathv[i], got, expected);
		cr_expect_gt(strlen(got), 0, "%s: no mistake was told", found.gl_pathv[i]);
		free(got);
		free(expected);
	}
	globfree(&found);
}

Test(golden, every_text_has_its_file)
{
	glob_t found;

	golden_enter();
	cr_assert_eq(glob("bad-*.txt", 0, NULL, &found), 0);
	for (size_t i = 0; i < found.gl_pathc; i++) {
		char path[256];

		snprintf(path, sizeof(path), "%.*s.yaml", (int)(strlen(found.gl_pathv[i]) - 4),
			 found.gl_pathv[i]);
		cr_expect_eq(access(path, R_OK), 0, "%s is missing", path);
	}
	globfree(&found);
}

Test(golden, a_file_that_cannot_be_read)
{
	char *text = errors_of("/nowhere/at-all.yaml");

	cr_expect_str_eq(text, "/nowhere/at-all.yaml: error: No such file or directory\n");
	free(text);
}

Test(golden, more_than_1_mib)
{
	size_t len = (1u << 20) + 1;
	char *text = malloc(len), *told = NULL;
	struct cc_topology *t = NULL;
	size_t told_len;
	FILE *errors = open_memstream(&told, &told_len);

	memset(text, '#', len);
	cr_expect_eq(cc_topology_parse("big.yaml", text, len, errors, &t), -EINVAL);
	fclose(errors);
	cr_expect_str_eq(told, "big.yaml:1:1: error: the file is longer than 1MiB\n");
	free(text);
	free(told);
}
