package raftstore

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/raftstore/internal/transport"
)

func TestOutdated(t *testing.T) {
	known := seen{start: 7, run: 70, entry: 1500}
	for name, test := range map[string]struct {
		known      seen
		replicated uint64
		hello      transport.Hello
		refusal    string
	}{
		"the first contact":             {hello: transport.Hello{Start: 1, Run: 1}},
		"the same run":                  {known: known, hello: transport.Hello{Start: 7, Run: 70, Last: 1500}},
		"the same run, before an entry": {known: known, hello: transport.Hello{Start: 7, Run: 70, Last: 1499}},
		"a later start": {
			known: known, replicated: 7, hello: transport.Hello{Start: 9, Run: 1, Last: 1600},
		},
		"an earlier start": {
			known, 0, transport.Hello{Start: 5, Run: 1, Last: 1600},
			"start 7 of it is known, and this is its start 5",
		},
		"earlier than replicated": {
			seen{}, 7, transport.Hello{Start: 5, Run: 1},
			"start 7 of it is known, and this is its start 5",
		},
		"another of the same": {
			known, 7, transport.Hello{Start: 7, Run: 1, Last: 1600},
			"start 7 of it is known, and this is another one of the same number",
		},
		"later, and a shorter log": {
			known, 7, transport.Hello{Start: 8, Run: 1, Last: 900},
			"entry 1500 of its log is known, and its log ends at 900",
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := outdated(test.known, test.replicated, test.hello)
			if test.refusal == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, test.refusal)
		})
	}
}
