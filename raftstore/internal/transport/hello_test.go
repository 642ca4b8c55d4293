package transport

import (
	"bytes"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func greeting(own Hello, verdict error, refused *[]string) Handshake {
	return Handshake{
		Await:   func(time.Duration) error { return nil },
		Verify:  func(net.Conn, string) error { return nil },
		Own:     func() Hello { return own },
		Judge:   func(Hello) error { return verdict },
		Refused: func(by, reason string) { *refused = append(*refused, by+": "+reason) },
	}
}

// TestHandshake lets either end refuse the other: both then end the connection, and the refused one receives why.
func TestHandshake(t *testing.T) {
	a, b := Hello{"a@1", 1, 2, 3, 4}, Hello{"b@1", 5, 6, 7, 8}
	older := errors.New("start 7 of it is known")
	for name, test := range map[string]struct {
		ofB, ofA             error // the verdict of a on b, and of b on a
		refusedA, refusedB   []string
		dialedErr, acceptErr string
	}{
		"both agree": {},
		"the dialed one refuses": {
			ofA: older, refusedA: []string{"b@1: start 7 of it is known"},
			dialedErr: "handshake of members: refused by the members' handshake: member b@1: start 7 of it is known",
			acceptErr: "handshake of members: refused by the members' handshake: start 7 of it is known",
		},
		"the dialling one refuses": {
			ofB: older, refusedB: []string{"a@1: start 7 of it is known"},
			dialedErr: "handshake of members: refused by the members' handshake: start 7 of it is known",
			acceptErr: "handshake of members: refused by the members' handshake: member a@1: start 7 of it is known",
		},
	} {
		t.Run(name, func(t *testing.T) {
			here, there := net.Pipe()
			defer here.Close()
			defer there.Close()
			var refusedA, refusedB []string
			accepted := make(chan error, 1)
			go func() { accepted <- greeting(b, test.ofA, &refusedB).accepted(there, rpcTimeout) }()
			text := func(err error) string {
				if err == nil {
					return ""
				}
				return err.Error()
			}
			require.Equal(t, test.dialedErr, text(greeting(a, test.ofB, &refusedA).dialed(here, rpcTimeout)))
			require.Equal(t, test.acceptErr, text(<-accepted))
			require.Equal(t, test.refusedA, refusedA)
			require.Equal(t, test.refusedB, refusedB)
		})
	}
}

func FuzzHello(f *testing.F) {
	var b bytes.Buffer
	require.NoError(f, writeHello(&b, Hello{"a@1", 1, 2, 3, 4}))
	f.Add(b.Bytes())
	f.Add([]byte(helloMagic + strings.Repeat("\xff", 40)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		h, err := decodeHello(bytes.NewReader(raw))
		if err != nil {
			return
		}
		var again bytes.Buffer
		require.NoError(t, writeHello(&again, h))
		require.True(t, bytes.HasPrefix(raw, again.Bytes()))
	})
}
