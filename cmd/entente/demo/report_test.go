package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func threeSteps() []step {
	return []step{
		{"One", func(context.Context) (string, error) { return "proved", nil }},
		{"Two", func(context.Context) (string, error) { return "", errors.New("it does not hold") }},
		{"Three", func(context.Context) (string, error) { panic("it runs although the second failed") }},
	}
}

func TestReportAsJSON(t *testing.T) {
	var out bytes.Buffer
	r := newReport(Options{Once: true, JSON: true, Stdout: &out})
	r.begin("/tmp/somewhere")
	for _, s := range threeSteps() {
		r.run(t.Context(), s)
	}
	require.Empty(t, out.String(), "standard output has text before the object")
	require.NoError(t, r.end())
	require.Equal(t, 1, strings.Count(out.String(), "\n"))
	var got map[string]any
	require.NoError(t, json.Unmarshal(out.Bytes(), &got))
	for _, s := range got["steps"].([]any) {
		require.IsType(t, 0.0, s.(map[string]any)["ms"])
		delete(s.(map[string]any), "ms")
	}
	require.Equal(t, map[string]any{"ok": false, "steps": []any{
		map[string]any{"name": "One", "ok": true, "detail": "proved"},
		map[string]any{"name": "Two", "ok": false, "detail": "it does not hold"},
		map[string]any{"name": "Three", "ok": false, "detail": "not run, because a step before it failed"},
	}}, got)
}

func TestReportAsText(t *testing.T) {
	var out bytes.Buffer
	r := newReport(Options{Stdout: &out})
	r.begin("/tmp/somewhere")
	for _, s := range threeSteps() {
		r.run(t.Context(), s)
	}
	require.NoError(t, r.end())
	require.Contains(t, out.String(), "Two regions, eu and us, of three members each, in /tmp/somewhere\n")
	require.Regexp(t, `✓ One +0\.00 s\n  proved\n✗ Two +0\.00 s\n  it does not hold\n`, out.String())
	require.NotContains(t, out.String(), "Three")
	require.Regexp(t, `1 of 3 steps held, in 0\.0 s\.\n$`, out.String())
}

func TestInterruptedStep(t *testing.T) {
	var out bytes.Buffer
	r := newReport(Options{Stdout: &out})
	ctx, cancel := context.WithCancel(t.Context())
	r.run(ctx, step{"One", func(ctx context.Context) (string, error) {
		cancel()
		return "", ctx.Err()
	}})
	require.Contains(t, out.String(), "  interrupted\n")
	require.False(t, r.ok)
}

func TestJSONNeedsOnce(t *testing.T) {
	require.EqualError(t, Run(t.Context(), Options{JSON: true}), "--output json needs --once")
}
