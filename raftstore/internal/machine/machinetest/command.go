// Package machinetest parses commands for the transcripts of tests.
package machinetest

import (
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
)

// Command parses a line MEMBER/INCARNATION/COUNTER WORDS…, whose words are settled=N, base=N, read=KEY@REV,
// list=PREFIX, put=KEY:VALUE and del=KEY, and whose rows are all of table "t". where is the line's place, for failures.
func Command(t testing.TB, where, line string) *statev1.Command {
	t.Helper()
	words := strings.Fields(line)
	id := strings.Split(words[0], "/")
	require.Len(t, id, 3, where)
	tx := &statev1.Transaction{}
	c := &statev1.Command{
		Id: &statev1.CommandID{
			Member: id[0], Incarnation: Number(t, where, id[1]), Counter: Number(t, where, id[2]),
		},
		Kind: &statev1.Command_Transaction{Transaction: tx},
	}
	for _, word := range words[1:] {
		verb, arg, ok := strings.Cut(word, "=")
		require.True(t, ok, where)
		switch verb {
		case "settled":
			c.Settled = Number(t, where, arg)
		case "base":
			tx.Base = Number(t, where, arg)
		case "read":
			key, revision, _ := strings.Cut(arg, "@")
			tx.Rows = append(tx.Rows, &statev1.RowCondition{Table: "t", Key: key, Revision: Number(t, where, revision)})
		case "list":
			tx.Prefixes = append(tx.Prefixes, &statev1.PrefixCondition{Table: "t", Prefix: strings.Trim(arg, `"`)})
		case "put":
			key, value, _ := strings.Cut(arg, ":")
			tx.Changes = append(tx.Changes, &statev1.RowChange{Table: "t", Key: key, Value: []byte(value)})
		case "del":
			tx.Changes = append(tx.Changes, &statev1.RowChange{Table: "t", Key: arg})
		default:
			t.Fatalf("%s: unknown word %q", where, word)
		}
	}
	return c
}

// Number parses a number of a transcript.
func Number(t testing.TB, where, s string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 64)
	require.NoError(t, err, where)
	return n
}
