#!/usr/bin/env bash
# What a newcomer tries in the first hour, as a table: tests/newcomer.sh PROGRAM
#
# Each row is a command, its exit code and the last line that it says, beside what it should end with and say. Rows that are not as they should
# be are marked, and make the script fail. It works in a folder of its own, and needs no network: what is not here is looked for at an address
# that refuses.
set -u
export H=${1:?usage: tests/newcomer.sh PROGRAM}
H=$(realpath "$H")
source=$(cd "$(dirname "$0")/.." && pwd)
export GOLDENS="$source/tests/goldens"
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place" || exit 1
export HF_ENDPOINT=http://127.0.0.1:9 HF_HOME="$place/hf" NO_COLOR=1
unset WGPU_BACKEND WGPU_ADAPTER_NAME XDG_RUNTIME_DIR

failures=0
rows=0
# row WHAT EXIT-CODE PATTERN COMMAND: the pattern (grep -E) is found in what the command says, or, after a !, is not.
row() {
    local what=$1 code=$2 pattern=$3 command=$4 said got mark=""
    said=$(timeout 120 bash -c "$command" 2>&1 </dev/null | tr -d "\000"; exit "${PIPESTATUS[0]}")
    got=$?
    local found=0
    case $pattern in
    !*) grep -aqE -- "${pattern#!}" <<<"$said" && found=1 ;;
    *) grep -aqE -- "$pattern" <<<"$said" || found=1 ;;
    esac
    if [ "$got" != "$code" ] || [ $found = 1 ]; then
        mark="**no**"
        failures=$((failures + 1))
    fi
    rows=$((rows + 1))
    local last
    last=$(grep -av "^$" <<<"$said" | grep -avE "^(Usage:|For more information|  )" | tail -n 1 | cut -c 1-150)
    printf '| %s | `%s` | %s | %s | %s |\n' "$what" "${command//|/\\|}" "$got" "${last//|/\\|}" "$mark"
}

echo '| what | command | exit | last line | as it should be |'
echo '|---|---|---:|---|---|'
"$H" generate "a house" -s 1 -q --device cpu -o house.png >/dev/null || exit 1
"$H" generate "a house" -s 1 -q --device cpu -o photo.jpg >/dev/null || exit 1
mkdir models

# The first picture, and words that the model does not know.
row 'the first command' 0 'a-red-heart-[0-9]+\.png$' '$H generate "a red heart"'
row 'drivers have nothing to say' 0 '!XDG_RUNTIME_DIR' '$H devices'
row 'without quotes' 0 'a-red-heart-1\.png$' '$H generate a red heart -s 1'
row 'something that it cannot draw' 0 'warning: .*landscape' '$H generate "a mountain landscape" -s 1'
row 'the same, where a script must know' 2 'landscape' '$H generate "a mountain landscape" --strict'
row 'in JSON, warnings are in the object' 0 '"warnings":\[".*landscape' '$H generate "a mountain landscape" -s 1 --json'
row 'known words are not warned of' 0 '!warning' '$H generate "two strawberries, 3d style" -s 1'
row 'nothing to draw' 0 'warning: the prompt is empty' '$H generate "" -s 1'
row 'what there is to draw' 0 'animals: .*fox' '$H models'

# Settings that are copied from other models.
row 'guidance of Stable Diffusion' 0 'warning: .*7\.5' '$H generate "a fox" -s 1 --guidance 7.5'
row 'a negative prompt without guidance' 0 'warning: the negative prompt' '$H generate "a fox" -s 1 --negative-prompt ugly'
row 'with guidance it is read' 0 '!warning' '$H generate "a fox" -s 1 -m icons-64 --steps 2 --negative-prompt ugly'
row 'a size of Stable Diffusion' 0 'warning: 256x256 is far from' '$H generate "a fox" -s 1 -W 256 -H 256'
row 'a size nearby' 0 '!warning' '$H generate "a fox" -s 1 -W 72'
row 'a size that is no multiple' 2 'multiples of 8' '$H generate "a fox" -W 65'

# Flags by the names of other tools.
row 'diffusers: steps' 2 'here --steps' '$H generate "a fox" --num-inference-steps 4'
row 'diffusers, with underscores' 2 'here --steps' '$H generate "a fox" --num_inference_steps 4'
row 'diffusers: scheduler' 2 'here --sampler .*--schedule' '$H generate "a fox" --scheduler euler'
row 'guidance by its short name' 2 'here --guidance' '$H generate "a fox" --cfg 4'
row 'guidance by its long name' 2 'here --guidance' '$H generate "a fox" --guidance-scale 4'
row 'sd.cpp: sampling method' 2 'here --sampler' '$H generate "a fox" --sampling-method euler'
row 'a prompt behind a flag' 2 'a prompt needs no flag' '$H generate --prompt "a fox"'
row 'how many' 2 'here --count' '$H generate "a fox" --num-images 2'
row 'where to' 2 'here --output' '$H generate "a fox" --outdir pictures'
row 'a picture behind a flag' 2 'needs no flag' '$H img2img --init-image house.png "a fox"'
row 'how much of it changes' 2 'here --strength' '$H img2img house.png "a fox" --denoising-strength 0.5'
row 'a sampler in AUTOMATIC1111 spelling' 0 'a-fox-1' '$H generate "a fox" -s 1 -m icons-64 --steps 2 --sampler "DPM++ 2M Karras"'
row 'a mistyped sampler' 2 'did you mean euler' '$H generate "a fox" --sampler eulr'
row 'what is this sampler?' 0 'paper .*Karras' '$H samplers heun'
row 'by another name' 0 '^euler_ancestral: ' '$H samplers Euler a'

# Pictures.
row 'prompt and picture swapped' 2 'headwater inpaint house.png "a yellow house"' '$H inpaint "a yellow house" house.png --mask 8,8,9,9'
row 'the same with img2img' 2 'headwater img2img photo.jpg "a cat"' '$H img2img "a cat" photo.jpg'
row 'the same without quotes' 2 'headwater colorize house.png "a yellow house"' '$H colorize a yellow house house.png'
row 'a picture given to generate' 2 'headwater img2img photo.jpg' '$H generate photo.jpg "a cat"'
row 'a picture that is not there' 1 'cannot read hause.png' '$H img2img hause.png "a cat"'

# Files.
row 'JPEG by its ending' 0 '^JPEG image' '$H generate "a fox" -s 1 -q -o fox.jpg && $H info fox.jpg | head -n 1'
row 'it says how it was made' 0 'Steps: 1, Sampler: LCM' '$H info fox.jpg'
row 'WebP by its ending' 0 '^WebP image' '$H generate "a fox" -s 1 -q -o fox.webp && $H info fox.webp | head -n 1'
row 'a folder that is not there yet' 0 '^out/today/a-fox-1.png$' '$H generate "a fox" -s 1 -q -o "out/today/{prompt}-{seed}.png"'
row 'the same name again' 2 'fox.jpg exists already' '$H generate "a fox" -s 2 -q -o fox.jpg'
row 'the same name again, meant' 0 '^fox.jpg$' '$H generate "a fox" -s 2 -q -o fox.jpg --force'
row 'the default name again' 0 '^a-fox-1-[0-9]+\.png$' '$H generate "a fox" -s 1 -q'
row 'an unknown ending' 2 'must end in' '$H generate "a fox" -o fox.bmp'
row 'a picture to a pipe' 0 'PNG' '$H generate "a fox" -s 1 -q -o - | head -c 4'
if script -qec true /dev/null >/dev/null 2>&1; then
    row 'a picture to the terminal' 2 'to the terminal' 'script -qec "$H generate fox -o -" /dev/null'
fi
row 'a sample says where it is from' 0 '"sigma":"0"' '$H generate "a fox" -s 1 -q -o fox.safetensors && head -c 4000 fox.safetensors | tr -d "\\\\" | tr -d "\000"'

# Models.
row 'a path that is not there' 1 'there is no file or folder path/to/model.safetensors' '$H generate "a fox" -m path/to/model.safetensors'
row 'a folder that is not there' 1 'there is no file or folder models/sd15' '$H generate "a fox" -m models/sd15'
row 'a model of the hub' 1 'nor is someone/something a file or folder here' '$H generate "a fox" -m someone/something'
row 'one file of it is in the help' 0 'OWNER/REPO/FILE' '$H generate --help'
row 'a mistyped bundled model' 1 'did you mean icons-64\?' '$H generate "a fox" -m icon-64'
row 'a pickle' 1 'pickle' 'printf "\200\002c" > model.ckpt; $H generate "a fox" -m model.ckpt'

# Many pictures, and a server.
row 'a file of jobs' 0 '1 done \(0 of them before\)' 'echo "{\"id\": 1, \"prompt\": \"a fox\"}" | $H worker - -o many --device cpu'
row 'the same again' 0 '1 done \(1 of them before\)' 'echo "{\"id\": 1, \"prompt\": \"a fox\"}" | $H worker - -o many --device cpu'
row 'a job that is none' 2 '1 jobs cannot be made, and many/results' 'echo "{\"prompt\": \"a fox\"}" | $H worker - -o many --device cpu'
row 'what a server would serve' 0 'icons-64: inside this program' '$H serve --check --port 0 --device cpu'
row 'one that others reach without a key' 2 'give a key' '$H serve --check --port 0 --device cpu --host 0.0.0.0'

# Help.
row 'help lists completions and man' 0 '^  completions ' '$H --help'
row 'completions' 0 'complete -F' '$H completions bash'
row 'a manual page' 0 '^.TH headwater-generate 1' '$H man generate'
row 'all of them' 0 'headwater-worker.1' '$H man --dir man && ls man | tail -n 2'

echo
echo "$((rows - failures)) of $rows as they should be"
[ $failures = 0 ]
