package cli

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

func TestConfirm(t *testing.T) {
	effects := &ententev1.DeleteDomainResponse{Effects: []*ententev1.Effect{
		{Kind: "authority", Subject: "a1", Detail: "stops signing"},
		{Kind: "svids", Subject: "all", Detail: "are accepted until", Time: timestamppb.New(time.Now().Add(time.Hour))},
	}}
	for name, test := range map[string]struct {
		terminal        bool
		answer, refusal string
	}{
		"yes":         {true, "yes\n", ""},
		"no":          {true, "no\n", "nothing was changed: the answer was not yes"},
		"y":           {true, "y\n", "nothing was changed: the answer was not yes"},
		"end of file": {true, "", "nothing was changed: the answer was not yes"},
		"no terminal": {false, "yes\n", "nothing was changed, because there is no terminal to ask 'Delete x?': add " +
			"--yes to do it, or --dry-run to see the effect"},
	} {
		t.Run(name, func(t *testing.T) {
			var shown bytes.Buffer
			env := &Env{
				Stdin: strings.NewReader(test.answer), Stderr: &shown, Terminal: test.terminal, Output: OutputTable,
			}
			err := (&Destruction{env: env}).confirm(context.Background(), "Delete x", effects)
			if test.refusal == "" {
				require.NoError(t, err)
			} else {
				require.EqualError(t, err, test.refusal)
			}
			require.Contains(t, shown.String(), "authority   a1      at once")
			require.Equal(t, test.terminal, strings.HasSuffix(shown.String(), "Delete x? Type yes: "))
		})
	}
}

func TestConfirmIsInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	env := &Env{Stdin: blocked{t.Context()}, Stderr: &bytes.Buffer{}, Terminal: true, Output: OutputTable}
	err := (&Destruction{env: env}).confirm(ctx, "Delete x", &ententev1.DeleteDomainResponse{})
	require.ErrorIs(t, err, context.Canceled)
}

// blocked is standard input on which nobody types.
type blocked struct{ ctx context.Context }

func (b blocked) Read([]byte) (int, error) { <-b.ctx.Done(); return 0, b.ctx.Err() }
