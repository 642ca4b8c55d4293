package config

import (
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// maxConfigBytes is the size limit of a configuration file. A typical one has a few kilobytes.
const maxConfigBytes = 1 << 20

func parseFile(path string) (*hcl.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	src, err := io.ReadAll(io.LimitReader(f, maxConfigBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	if len(src) > maxConfigBytes {
		return nil, fmt.Errorf("read configuration %s: larger than %d bytes; is this the right file?",
			path, maxConfigBytes)
	}
	return parseSource(src, path)
}

func parseSource(src []byte, name string) (*hcl.File, error) {
	file, diags := hclparse.NewParser().ParseHCL(src, name)
	if diags.HasErrors() {
		return nil, sentences(unquoted(src, diags))
	}
	return file, nil
}

// sentences converts diagnostics to one error with one line for each: the place, the mistake and the remedy.
func sentences(diags hcl.Diagnostics) error {
	line := func(d *hcl.Diagnostic) int {
		if d.Subject == nil {
			return 0
		}
		return d.Subject.Start.Line
	}
	slices.SortStableFunc(diags, func(a, b *hcl.Diagnostic) int { return line(a) - line(b) })
	var errs []error
	for _, one := range diags {
		if one.Severity != hcl.DiagError {
			continue
		}
		text := one.Detail
		if text == "" {
			text = one.Summary
		}
		text = strings.TrimSpace(strings.Join(strings.Fields(text), " "))
		if one.Subject != nil {
			text = fmt.Sprintf("%s:%d: %s", one.Subject.Filename, one.Subject.Start.Line, text)
		}
		errs = append(errs, errors.New(text))
	}
	return errors.Join(errs...)
}

// block reads the settings of one block. It collects mistakes, so one error can report them all.
type block struct {
	name    string
	attrs   hcl.Attributes
	missing hcl.Range
	src     []byte // of the file
	diags   *hcl.Diagnostics
	out     *hclwrite.Body // receives the effective value of each setting that is read
	// literals receives the secrets that are in the file itself. If nil, there is no file.
	literals *[]string
}

// record writes the effective value of a setting.
func (b *block) record(name string, v cty.Value) { b.out.SetAttributeValue(name, v) }

// refuse adds a mistake in the setting called name. The text has the reason and the remedy.
func (b *block) refuse(name, format string, args ...any) {
	at := b.missing
	if a, ok := b.attrs[name]; ok {
		at = a.Expr.Range()
	}
	*b.diags = append(*b.diags, &hcl.Diagnostic{
		Severity: hcl.DiagError, Summary: "Invalid setting", Subject: &at,
		Detail: fmt.Sprintf("%s.%s: ", b.name, name) + fmt.Sprintf(format, args...),
	})
}

func (b *block) value(name string, want cty.Type) (cty.Value, bool) {
	attr, ok := b.attrs[name]
	if !ok {
		return cty.NilVal, false
	}
	text := string(attr.Expr.Range().SliceBytes(b.src))
	if len(attr.Expr.Variables()) > 0 {
		b.refuse(name, "%s", variable(name, text, want))
		return cty.NilVal, false
	}
	given, diags := attr.Expr.Value(nil)
	if diags.HasErrors() {
		*b.diags = append(*b.diags, diags...)
		return cty.NilVal, false
	}
	v, err := convert.Convert(given, want)
	if err != nil || v.IsNull() || !v.IsWhollyKnown() {
		b.refuse(name, "%s", otherType(name, text, given, want))
		return cty.NilVal, false
	}
	return v, true
}

func (b *block) text(name, def string) string {
	if v, ok := b.value(name, cty.String); ok {
		if def = v.AsString(); def == "" {
			b.refuse(name, "must not be empty")
		}
	}
	if def != "" {
		b.record(name, cty.StringVal(def))
	}
	return def
}

// path reads the path of a file, which can be a credential of systemd, or returns "".
func (b *block) path(name string) string {
	path, err := Credential(b.text(name, ""))
	if err != nil {
		b.refuse(name, "%v", err)
	}
	return path
}

// texts reads a list of one or more strings.
func (b *block) texts(name string) []string {
	v, ok := b.value(name, cty.List(cty.String))
	if !ok {
		return nil
	}
	if v.LengthInt() == 0 {
		b.refuse(name, "must not be empty")
	}
	var out []string
	for _, e := range v.AsValueSlice() {
		if e.IsNull() {
			b.refuse(name, "must not contain null")
			return nil
		}
		out = append(out, e.AsString())
	}
	b.record(name, v)
	return out
}

// boolean reads a bool.
func (b *block) boolean(name string, def bool) bool {
	if v, ok := b.value(name, cty.Bool); ok {
		def = v.True()
	}
	b.record(name, cty.BoolVal(def))
	return def
}

func (b *block) integer(name string, def, low, high int) int {
	b.record(name, cty.NumberIntVal(int64(def)))
	v, ok := b.value(name, cty.Number)
	if !ok {
		return def
	}
	b.record(name, v)
	n, acc := v.AsBigFloat().Int64()
	if acc != big.Exact || n < int64(low) || n > int64(high) {
		b.refuse(name, "must be a whole number from %d to %d", low, high)
		return def
	}
	return int(n)
}

func (b *block) duration(name string, def, low, high time.Duration) time.Duration {
	b.record(name, cty.StringVal(durationText(def)))
	v, ok := b.value(name, cty.String)
	if !ok {
		return def
	}
	d, err := time.ParseDuration(v.AsString())
	if err != nil {
		b.refuse(name, "%q is not a duration; write a number with a unit, such as %q", v.AsString(), def)
		return def
	}
	if d < low || d > high {
		b.refuse(name, "%s is out of bounds; it must be from %s to %s", d, low, high)
		return def
	}
	b.record(name, cty.StringVal(durationText(d)))
	return d
}

// durationText returns a duration as people write it, without zeros at its end.
func durationText(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func (b *block) choice(name, def string, among ...string) string {
	b.record(name, cty.StringVal(def))
	v, ok := b.value(name, cty.String)
	if !ok {
		return def
	}
	if slices.Contains(among, v.AsString()) {
		b.record(name, v)
		return v.AsString()
	}
	b.refuse(name, "%q is not one of %s", v.AsString(), strings.Join(among, ", "))
	return def
}

func (b *block) stalePolicy(name string) StalePolicy {
	return StalePolicy(b.choice(name, string(StaleDemote), string(StaleDemote), string(StaleKeep), string(StaleDrop)))
}

func (b *block) identifier(name string) string {
	s := b.text(name, "")
	if s != "" && !nameForm.MatchString(s) {
		b.refuse(name, "%q must be 1 to 63 lower-case letters, digits, dots, dashes and underscores, "+
			"with a letter or digit at both ends", s)
	}
	return s
}

func (b *block) hostPort(name, def string) string {
	s := b.text(name, def)
	if s == "" {
		return s
	}
	if err := checkHostPort(s); err != nil {
		b.refuse(name, "%v", err)
	}
	return s
}

func checkHostPort(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" {
		return fmt.Errorf("%q is not an address; write host:port, such as %q", s, defaultListen)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("%q has no usable port; write host:port with a port from 1 to 65535", s)
	}
	return nil
}

func unspecified(hostPort string) bool {
	host, _, _ := net.SplitHostPort(hostPort)
	ip := net.ParseIP(host)
	return ip != nil && ip.IsUnspecified()
}
