package docs

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParse(t *testing.T) {
	blocks, err := Parse("# Title\n" +
		"```\npicture\n```\n" +
		"<!-- runs: clusters -->\n" +
		"<!-- before:\neu$ entente status\n-->\n" +
		"```console\n" +
		"eu$ entente federation list      # a comment\nDOMAIN   STATE\n\n" +
		"us$ entente hint shop \\\n    --locality us/a\n…\n" +
		"$ cat > f <<'EOF'\na\n$ b\nEOF\n$ entente server --dev\n" +
		"```\n" +
		"<!-- not run: needs a cloud -->\n```sh\nmake build\n```\n" +
		"<!-- file: eu-1 /etc/entente/entente.hcl -->\n```hcl\ncluster {}\n```\n" +
		"```sh\nA=1 entente hint shop\nentente hint shop > file\n```\n")
	require.NoError(t, err)
	assert.Equal(t, []Block{
		{Line: 2, Text: "picture\n"},
		{Line: 6, Language: "console", World: "clusters", Text: "eu$ entente status\n", Steps: []Step{
			{Line: 7, Place: "eu", Command: "entente status"},
		}},
		{Line: 9, Language: "console", World: "clusters", Text: blocks[2].Text, Steps: []Step{
			{
				Line: 10, Place: "eu", Command: "entente federation list      # a comment",
				Shown: []string{"DOMAIN   STATE"},
			},
			{Line: 13, Place: "us", Command: "entente hint shop \\\n    --locality us/a", Shown: []string{"…"}},
			{Line: 16, Command: "cat > f <<'EOF'\na\n$ b\nEOF"},
			{Line: 20, Command: "entente server --dev"},
		}},
		{Line: 23, Language: "sh", World: "clusters", NotRun: "needs a cloud", Text: "make build\n", Steps: []Step{
			{Line: 24, Command: "make build"},
		}},
		{
			Line: 27, Language: "hcl", World: "clusters", Place: "eu-1", File: "/etc/entente/entente.hcl",
			Text: "cluster {}\n",
		},
		{Line: 30, Language: "sh", World: "clusters", Text: blocks[5].Text, Steps: []Step{
			{Line: 31, Command: "A=1 entente hint shop"}, {Line: 32, Command: "entente hint shop > file"},
		}},
	}, blocks)
	runs := []bool{}
	for _, b := range blocks {
		runs = append(runs, b.Runs())
	}
	assert.Equal(t, []bool{false, true, true, false, true, true}, runs)
	assert.True(t, blocks[2].Steps[3].Stays())
	assert.False(t, blocks[2].Steps[0].Stays())
	assert.True(t, blocks[5].Steps[0].Reads(), "a variable before a command")
	assert.False(t, blocks[5].Steps[1].Reads(), "a command that writes a file")
}

func TestParseRefuses(t *testing.T) {
	for page, want := range map[string]string{
		"```console\noutput\n```":        "line 2: the block begins without a prompt",
		"text\n```sh\nls\n":              "line 2: the block has no end",
		"```console\n$ cat <<EOF\n```\n": "line 2: the text of the command does not end with EOF",
	} {
		_, err := Parse(page)
		assert.EqualError(t, err, want)
	}
}
