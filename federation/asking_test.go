package federation

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAskingAfterConsent(t *testing.T) {
	now := someTime
	minute := asking{at: now.Add(time.Minute), wait: settledConsent}
	due := asking{at: now, wait: 4 * time.Second}
	never := func() bool { t.Error("it was asked for a stream"); return false }
	stream := func(up bool) func() bool { return func() bool { return up } }
	for name, c := range map[string]struct {
		was  asking
		q    question
		ask  bool
		wait time.Duration
	}{
		"another member's":               {due, question{seen: true, streamed: never}, false, 4 * time.Second},
		"another member's, decided here": {due, question{nudged: true, streamed: never}, true, firstConsent},
		"another member's, told here":    {asking{at: now, soon: true}, question{seen: true, agreed: true, streamed: stream(true)}, true, settledConsent},
		"not yet":                        {minute, question{seen: true, owned: true, agreed: true, streamed: never}, false, settledConsent},
		"the clock was set back":         {asking{at: now.Add(time.Hour)}, question{seen: true, owned: true, agreed: true, streamed: stream(false)}, true, settledConsent},
		"a new one that waits":           {asking{}, question{owned: true, untold: true, streamed: never}, true, firstConsent},
		"it waits for long":              {asking{at: now, wait: lastConsent}, question{seen: true, owned: true, streamed: never}, true, lastConsent},
		"the member was just started":    {asking{}, question{owned: true, agreed: true, untold: true, streamed: never}, false, settledConsent},
		"a restore brought it back":      {asking{}, question{appeared: true, owned: true, agreed: true, streamed: stream(false)}, true, settledConsent},
		"a stream would tell":            {due, question{seen: true, owned: true, agreed: true, streamed: stream(true)}, false, settledConsent},
		"no stream would tell":           {due, question{seen: true, owned: true, agreed: true, streamed: stream(false)}, true, settledConsent},
		"the members changed":            {minute, question{seen: true, owned: true, agreed: true, untold: true, changed: true, streamed: never}, true, firstConsent},
		"the other side was not reached": {due, question{seen: true, owned: true, agreed: true, untold: true, streamed: never}, true, 8 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			next, ask := c.was.after(c.q, now, 1)
			require.Equal(t, c.ask, ask)
			require.Equal(t, c.wait, next.wait)
			if ask {
				require.Equal(t, asking{at: now.Add(c.wait), wait: c.wait}, next)
			}
		})
	}
	early, _ := asking{}.after(question{owned: true, agreed: true, streamed: never}, now, 0.25)
	require.Equal(t, now.Add(settledConsent/4), early.at, "members that start together do not ask together")
}
