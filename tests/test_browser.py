"""07_explore as a user meets it: in JupyterLab and as a page of Voila, in headless Chromium, clicked and looked at.

Skipped where Chromium, its driver, selenium or voila is missing. Screenshots go to $MAMMO_CBAM_SCREENSHOTS, or to
pytest's temporary folder.
"""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import nbformat
import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
MISSING = [name for name in ("selenium", "voila", "jupyterlab") if importlib.util.find_spec(name) is None]
MISSING += [name for name, path in (("chromium", CHROMIUM), ("chromedriver", DRIVER)) if path is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs a browser: {', '.join(MISSING)} not installed")

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "07_explore.ipynb"
WAIT = 120  # seconds that one thing may take on two busy cores
SERVERS = {
    "lab": ["-m", "jupyterlab", "--allow-root", "--IdentityProvider.token=", "--ServerApp.password="],
    "voila": ["-m", "voila"],
}
PAGES = {"lab": "lab/tree/07_explore.ipynb", "voila": "voila/render/07_explore.ipynb"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the notebook, set to the tiny profile."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cell = next(cell for cell in notebook.cells if cell.metadata.get("tags") == ["parameters"])
    cell.source = cell.source.replace('profile = "quick"', 'profile = "tiny"')
    (tmp_path / "notebooks").mkdir()
    nbformat.write(notebook, tmp_path / "notebooks" / NOTEBOOK.name)
    quiet = tmp_path / "config" / "labconfig" / "page_config.json"
    quiet.parent.mkdir(parents=True)
    quiet.write_text('{"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": true}}')
    return tmp_path


@contextmanager
def server(kind: str, folder: Path, home: Path) -> Iterator[str]:
    """Address of a running JupyterLab or Voila; its kernels end with it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = {f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    places |= {"JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"), "JUPYTERLAB_SETTINGS_DIR": str(folder / "set")}
    environment = os.environ | places | {"MAMMO_CBAM_HOME": str(home), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *SERVERS[kind], "--no-browser", f"--port={port}", "--ip=127.0.0.1"]
    command += [str(folder / "notebooks")] if kind == "voila" else [f"--ServerApp.root_dir={folder / 'notebooks'}"]
    with open(folder / f"{kind}.log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
    try:
        until(lambda: answers(port), f"{kind} does not answer: {(folder / f'{kind}.log').read_text()[-2000:]}")
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def until(done: Callable[[], Any], failure: str, seconds: float = WAIT) -> Any:
    """What `done` gives as soon as it is true; an error of it counts as not yet."""
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.support.ui import WebDriverWait

    wait = WebDriverWait(None, seconds, poll_frequency=0.2, ignored_exceptions=[WebDriverException])
    return wait.until(lambda _: done(), failure)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    flags = "headless no-sandbox disable-gpu disable-dev-shm-usage disable-background-networking "
    flags += "disable-component-update disable-sync no-first-run window-size=1500,3600"
    for flag in [*flags.split(), f"user-data-dir={tmp_path / 'chromium'}"]:
        options.add_argument(f"--{flag}")
    driver = webdriver.Chrome(service=webdriver.ChromeService(str(DRIVER)), options=options)
    yield driver
    driver.quit()


class Page:
    """The explorer on the screen."""

    def __init__(self, driver: Any, pictures: Path) -> None:
        self.driver, self.pictures = driver, pictures

    def until(self, done: Callable[[], Any], failure: str) -> Any:
        """As `until`, with a screenshot when it fails."""
        from selenium.common.exceptions import TimeoutException

        try:
            return until(done, failure)
        except TimeoutException:
            pytest.fail(f"{failure}; screenshot: {self.keep('failure')}")

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def cases(self) -> list[Any]:
        return list(self.driver.find_elements("css selector", ".mammo-cases option"))

    def waits_for(self, place: str, wanted: str) -> None:
        self.until(lambda: wanted in self.find(f".mammo-{place}").text, f"{place} does not say {wanted!r}")

    def picture(self, place: str, other_than: str = "") -> str:
        """Address of a picture that is loaded and seen."""
        script = "const image = arguments[0]; return image.naturalWidth > 300 && image.offsetWidth > 300 && image.src"

        def found() -> str | None:
            source = self.driver.execute_script(script, self.find(f"img.mammo-{place}"))
            return source if source and source != other_than else None

        return str(self.until(found, f"no picture {place}, or the one from before"))

    def keep(self, name: str) -> Path:
        self.pictures.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(self.pictures / f"{name}.png"))
        return self.pictures / f"{name}.png"


def run_all_cells(page: Page) -> None:
    """JupyterLab's menu Run, entry Run All Cells; again when it drops the run, as it does while its kernel connects."""
    page.until(lambda: page.find(".jp-Notebook .jp-CodeCell"), "JupyterLab does not show the notebook")
    page.until(lambda: page.find(".jp-Notebook-ExecutionIndicator[data-status=idle]"), "the kernel does not start")

    def choose() -> None:
        for kind, entry in (("MenuBar", "Run"), ("Menu", "Run All Cells")):
            path = f"//*[contains(@class, 'lm-{kind}-itemLabel')][text()='{entry}']"
            page.until(lambda path=path: page.driver.find_element("xpath", path).click() or True, f"no entry {entry}")

    def has_run() -> bool:
        prompts = [prompt.text for prompt in page.driver.find_elements("css selector", ".jp-CodeCell .jp-InputPrompt")]
        if any(prompt.strip() == "[ ]:" for prompt in prompts) and not any("*" in prompt for prompt in prompts):
            choose()
            sleep(2)  # until the cells are marked
        return bool(page.driver.find_elements("css selector", "img.mammo-case"))

    page.until(has_run, "the cells do not run")


def use(page: Page, name: str) -> None:
    """Click a case, choose a second network, move the slider, name a file that is not there, look at the answers."""
    from selenium.webdriver import ActionChains, Keys
    from selenium.webdriver.support.ui import Select

    page.waits_for("case-text", "P_00011_LEFT_MLO")  # the highest loss
    page.waits_for("network-text", "Not for clinical use")
    before = {place: page.picture(place) for place in ("case", "siblings", "roc", "confusion")}
    page.keep(f"{name}_opened")

    page.cases()[3].click()
    page.waits_for("case-text", "p(malignant) = 0.700, malignant at threshold 0.500")
    before["case"] = page.picture("case", other_than=before["case"])

    page.waits_for("threshold-text", "2 missed of 4 malignant, 1 false alarms")
    ActionChains(page.driver).drag_and_drop_by_offset(page.find(".noUi-handle"), 55, 0).perform()
    page.waits_for("threshold-text", "3 missed of 4 malignant, 0 false alarms")
    page.waits_for("case-text", "p(malignant) = 0.700, benign")
    page.picture("roc", other_than=before["roc"])
    assert sum(case.text.startswith("✗") for case in page.cases()) == 3

    Select(page.find(".mammo-second select")).select_by_visible_text("G: ResNet50, from random weights")
    page.waits_for("case-text", "ResNet50, from random weights: p(malignant) = 0.700")
    page.picture("case", other_than=before["case"])

    page.find(".mammo-path input").send_keys("/absent.dcm", Keys.ENTER)
    page.waits_for("own-message", "/absent.dcm: there is no such file")


@pytest.mark.parametrize("kind", ["lab", "voila"])
def test_the_explorer_answers_in_a_browser(kind: str, folder: Path, trained_home: Path, browser: Any) -> None:
    page = Page(browser, Path(os.environ.get("MAMMO_CBAM_SCREENSHOTS") or folder / "screenshots"))
    with server(kind, folder, trained_home) as address:
        started = monotonic()
        browser.get(address + PAGES[kind])
        if kind == "lab":
            run_all_cells(page)
        page.picture("case")
        print(f"{kind}: {monotonic() - started:.1f} s from opening to the first picture")
        use(page, kind)
        page.keep(f"{kind}_used")
