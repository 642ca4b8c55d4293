package docs

import (
	"fmt"
	"regexp"
	"strings"
)

// Block is a fenced block of a page.
type Block struct {
	// Line is the number of its first line in the page.
	Line int
	// Language is the word after the fence.
	Language string
	// World is where its commands run; empty if the page does not name one.
	World string
	// NotRun is the reason for which its commands do not run; empty if they do.
	NotRun string
	// Place and File are set if the block is the text of a file.
	Place, File, Text string
	// Steps are the commands of a console or sh block, or of a comment.
	Steps []Step
}

// Commands reports whether the block is one of commands.
func (b Block) Commands() bool { return b.Language == "console" || b.Language == "sh" }

// Runs reports whether the runner has something to do for the block: commands to run, or a file to write.
func (b Block) Runs() bool { return (b.Commands() || b.File != "") && b.NotRun == "" }

// Step is one command, with the output that the page shows below it.
type Step struct {
	Line int
	// Place is the name before the $ of the prompt; empty if there is none.
	Place   string
	Command string
	Shown   []string
}

var (
	mark   = regexp.MustCompile(`^\s*<!-- (runs|not run|file): (.+) -->\s*$`)
	before = regexp.MustCompile(`^\s*<!-- before:\s*$`)
	fence  = regexp.MustCompile("^(\\s*)```(\\S*)\\s*$")
	prompt = regexp.MustCompile(`^([a-z0-9-]*)\$ +(.*)$`)
	here   = regexp.MustCompile(`<<'?([A-Z]+)'?`)
)

// Parse returns the fenced blocks of a page.
func Parse(page string) ([]Block, error) {
	var blocks []Block
	var world, reason, file string
	lines := strings.Split(page, "\n")
	for i := 0; i < len(lines); i++ {
		if m := mark.FindStringSubmatch(lines[i]); m != nil {
			switch m[1] {
			case "runs":
				world = m[2]
			case "not run":
				reason = m[2]
			case "file":
				file = m[2]
			}
			continue
		}
		opening, last := fence.FindStringSubmatch(lines[i]), "```"
		if before.MatchString(lines[i]) {
			opening, last = []string{"", "", "console"}, "-->"
		}
		if opening == nil {
			continue
		}
		b := Block{Line: i + 1, Language: opening[2], World: world, NotRun: reason}
		b.Place, b.File, _ = strings.Cut(file, " ")
		reason, file = "", ""
		var inside []string
		for i++; i < len(lines) && strings.TrimSpace(lines[i]) != last; i++ {
			inside = append(inside, strings.TrimPrefix(lines[i], opening[1]))
		}
		if i == len(lines) {
			return nil, fmt.Errorf("line %d: the block has no end", b.Line)
		}
		b.Text = strings.Join(inside, "\n") + "\n"
		if b.Commands() {
			var err error
			if b.Steps, err = steps(inside, b.Line+1, b.Language == "sh"); err != nil {
				return nil, err
			}
		}
		blocks = append(blocks, b)
	}
	return blocks, nil
}

// steps parses the lines of a block, of which the first has the given number. Bare lines are commands without a prompt.
func steps(lines []string, first int, bare bool) (steps []Step, err error) {
	for i := 0; i < len(lines); i++ {
		at := first + i
		m := prompt.FindStringSubmatch(lines[i])
		switch {
		case bare && strings.TrimSpace(lines[i]) == "":
			continue
		case bare:
			m = []string{"", "", lines[i]}
		case m == nil && len(steps) == 0:
			return nil, fmt.Errorf("line %d: the block begins without a prompt", at)
		case m == nil:
			last := &steps[len(steps)-1]
			last.Shown = append(last.Shown, lines[i])
			continue
		}
		command := m[2]
		for strings.HasSuffix(command, `\`) && i+1 < len(lines) {
			i++
			command += "\n" + lines[i]
		}
		if end := here.FindStringSubmatch(command); end != nil {
			for closed := false; !closed; {
				i++
				if i >= len(lines) {
					return nil, fmt.Errorf("line %d: the text of the command does not end with %s", at, end[1])
				}
				command += "\n" + lines[i]
				closed = lines[i] == end[1]
			}
		}
		steps = append(steps, Step{Line: at, Place: m[1], Command: command})
	}
	for i := range steps {
		steps[i].Shown = trim(steps[i].Shown)
	}
	return steps, nil
}

// trim drops empty lines at the end.
func trim(lines []string) []string {
	for len(lines) > 0 && strings.TrimSpace(lines[len(lines)-1]) == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}

var (
	// fails is the last line of what a failed command prints.
	fails = regexp.MustCompile(`^(entente: |Error: )`)
	// reads are the commands that change nothing.
	reads = regexp.MustCompile(`^(entente (hint|status) |` +
		`entente [a-z]+ (list|show|members|imports|exports|invitations|history|verify|tail|anchors|leases) |` +
		`spire-server [a-z]+ (list|show) |spire-server healthcheck |openssl x509 |istio-reader |curl |cat |ls |` +
		`kubectl get )`)
	// stays are the commands that do not end by themselves.
	stays = regexp.MustCompile(
		`^(entente server |entente agent --|entente sync --dir|spire-server run |kubedev |entente-kubernetes |` +
			`.* --watch |.* --ttl )`,
	)
	// setting is a variable before a command.
	setting = regexp.MustCompile(`^[A-Z_]+=\S+ +`)
)

// words is the command without variables before it and with a space at its end, for the expressions above.
func (s Step) words() string {
	command := s.Command
	for setting.MatchString(command) {
		command = setting.ReplaceAllString(command, "")
	}
	return command + " "
}

// Fails reports whether the page shows the command as one that fails.
func (s Step) Fails() bool { return len(s.Shown) > 0 && fails.MatchString(s.Shown[len(s.Shown)-1]) }

// Reads reports whether the command changes nothing, so that it can be repeated.
func (s Step) Reads() bool { return reads.MatchString(s.words()) && !strings.Contains(s.Command, ">") }

// Stays reports whether the command does not end by itself. It runs in the background.
func (s Step) Stays() bool { return stays.MatchString(s.words()) }
