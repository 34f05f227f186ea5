"""The items of CLAIM 2024 and TRIPOD+AI in our words, and the sentence a run can answer each with; see checklist.py.

CLAIM, 2024 update: Tejani et al., Radiology: Artificial Intelligence 2024, doi 10.1148/ryai.240300; 44 items.
TRIPOD+AI: Collins et al., BMJ 2024;385:e078378, doi 10.1136/bmj-2023-078378; 27 items, 52 with their parts.
Numbers and topics were compared with reprints of both published lists.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """One item. `answer`: a sentence with {names} of facts, or "" where no record can answer; `where`: on this page."""

    number: str
    topic: str
    asks: str
    answer: str = ""
    where: str = ""


CLAIM = (
    Item("1", "Title or abstract", "Is it said to be a study of AI, and of which kind?", "{method}", "title"),
    Item("2", "Abstract", "Does it sum up design, methods, results and conclusions?"),
    Item("3", "Background", "What is the clinical background, and what is the AI meant to do?"),
    Item("4", "Aims", "Which aims and hypotheses?", "{aim}", "Does CBAM help"),
    Item("5", "Design", "Is it prospective or retrospective?", "{design}", "Data"),
    Item("6", "Design", "What is the goal: a new model, feasibility, a comparison?", "{aim}", "subtitle"),
    Item("7", "Data", "Where do the data come from?", "{data}", "first line of the page; Data"),
    Item("8", "Data", "Which cases were included and excluded, by which rule?", "{eligibility}", "Data"),
    Item("9", "Data", "How were the images processed beforehand?", "{preprocessing}", "Data"),
    Item("10", "Data", "Was a part of the data selected, and how?", "{selection_of_data}", "Data"),
    Item("11", "Data", "How were the data freed of what identifies patients?", "{deidentification}", "Data"),
    Item("12", "Data", "How was missing data handled?", "{missing}", "Data, table of what was set aside"),
    Item("13", "Data", "How were the images acquired?", "{acquisition}", "Data"),
    Item("14", "Reference standard", "How was the truth obtained?", "{reference}", "Data"),
    Item("15", "Reference standard", "Why was this reference standard chosen?"),
    Item("16", "Reference standard", "Who or what made the annotations?", "{annotation}", "Data"),
    Item("17", "Reference standard", "How was the test set annotated?", "{annotation}", "Data"),
    Item("18", "Reference standard", "How much do annotators differ among and within themselves?"),
    Item("19", "Partitions", "How were cases assigned to training, validation and test?", "{protocol}", "Data"),
    Item("20", "Partitions", "At which level do the partitions share nothing?", "{leakage}", "Data, table of leaks"),
    Item("21", "Testing data", "Which sample size was intended, and why?"),
    Item("22", "Model", "What is the model, in detail?", "{model}", "Table 1; config.py and models/"),
    Item("23", "Model", "Which software?", "{software}", "Runs"),
    Item("24", "Model", "How were the parameters initialised?", "{initialisation}", "Table 1, Table 2, Runs"),
    Item("25", "Training", "How was it trained: augmentation, settings, how many models?", "{training}", "Runs"),
    Item("26", "Training", "How was the final model chosen?", "{final_model}", "Runs"),
    Item("27", "Training", "Were models combined into an ensemble?", "{ensemble}", ""),
    Item("28", "Evaluation", "Which measures of performance?", "{measures}", "Table 1, Table 2"),
    Item("29", "Evaluation", "How are significance and uncertainty measured?", "{uncertainty}", "Table 1, Table 2"),
    Item("30", "Evaluation", "How robust is it: which sensitivity analyses?", "{robustness}", "Table 1, Table 2, Data"),
    Item("31", "Evaluation", "How is it explained?", "{explanation}", "Where the network looks"),
    Item("32", "Evaluation", "How was it tested on data of the same source?", "{internal_test}", "Table 1, Table 2"),
    Item("33", "Evaluation", "How was it tested on data of another source?", "{external_test}", ""),
    Item("34", "Registration", "If it is a clinical trial: where is it registered?"),
    Item("35", "Results, data", "How many patients and images were included and excluded?", "{flow}", "Data"),
    Item("36", "Results, data", "What are the cases of each partition like?", "{parts}", "Data"),
    Item("37", "Results", "What is the performance, with its uncertainty?", "{performance}", "Table 1, Table 2"),
    Item("38", "Results", "What is the diagnostic performance, and how precise?", "{performance}", "Table 1, Table 2"),
    Item("39", "Results", "Which cases are wrong, and why?", "{failures}", "Where the network looks"),
    Item("40", "Discussion", "What limits the study: bias, uncertainty, generalisation?"),
    Item("41", "Discussion", "What does it mean for practice, and which role is intended?"),
    Item("42", "Other", "Where is the full protocol or further technical detail?", "{detail}", "Runs"),
    Item("43", "Other", "Are software, trained model and data to be had?", "{availability}", "How to cite"),
    Item("44", "Other", "Who paid, and what was their part?"),
)

TRIPOD_AI = (
    Item("1", "Title", "Is it said to develop or evaluate a prediction model, for whom, and of what?"),
    Item("2", "Abstract", "Does it follow TRIPOD+AI for Abstracts?"),
    Item("3a", "Background", "Which setting of care, why this model, which models are there already?"),
    Item("3b", "Background", "For which people, where in their care, and used by whom?"),
    Item("3c", "Background", "Which inequalities between groups of people are known?"),
    Item("4", "Objectives", "What is the aim: development, evaluation, or both?", "{aim}", "subtitle"),
    Item("5a", "Data", "Which sources, why these, and whom do they represent?", "{data}", "first line; Data"),
    Item("5b", "Data", "From when to when were the data collected?"),
    Item("6a", "Participants", "In which setting, in how many centres, where?", "{setting}", "Data"),
    Item("6b", "Participants", "Who was eligible?", "{eligibility}", "Data"),
    Item("6c", "Participants", "Which treatments, and how were they dealt with?"),
    Item("7", "Data preparation", "How were data processed and checked?", "{preprocessing} {checks}", "Data"),
    Item("8a", "Outcome", "What is predicted, how and when was it assessed?", "{reference}", "Data"),
    Item("8b", "Outcome", "Who assessed the outcome, where that takes judgement?"),
    Item("8c", "Outcome", "Was the assessment of the outcome blinded?"),
    Item("9a", "Predictors", "Which predictors to begin with, and how chosen?", "{predictors}", "Data"),
    Item("9b", "Predictors", "How is each predictor defined and measured?", "{preprocessing}", "Data"),
    Item("9c", "Predictors", "Who assessed predictors, where that takes judgement?", "{annotation}", "Data"),
    Item("10", "Sample size", "How was the size of the study arrived at, and is it enough?"),
    Item("11", "Missing data", "How was missing data handled, why was any left out?", "{missing}", "Data"),
    Item("12a", "Analysis", "Which data served which purpose, how were they split?", "{protocol}", "Data"),
    Item("12b", "Analysis", "How were predictors transformed or scaled?", "{preprocessing}", "Data"),
    Item(
        "12c",
        "Analysis",
        "Which model, built in which steps, validated how?",
        "{model} {training} {final_model}",
        "Runs",
    ),
    Item("12d", "Analysis", "How was variation between clusters dealt with?", "{clusters}", "Table 1, Table 2"),
    Item(
        "12e",
        "Analysis",
        "Which measures and plots of performance, and why?",
        "{measures} {uncertainty}",
        "Table 1, Table 2",
    ),
    Item("12f", "Analysis", "Was the model updated after its evaluation?", "", ""),
    Item("12g", "Analysis", "How were the predictions computed?", "{predictions}", "Runs"),
    Item("13", "Class imbalance", "Was imbalance of classes treated, and recalibrated after?", "{imbalance}", "Data"),
    Item("14", "Fairness", "What was done about fairness?"),
    Item(
        "15", "Model output", "What does the model give, how are cases classified?", "{threshold}", "Table 1, Table 2"
    ),
    Item("16", "Training and evaluation", "How do data for training and evaluation differ?", "{parts}", "Data"),
    Item("17", "Ethics", "Which committee approved it; which consent, or waiver?"),
    Item("18a", "Funding", "Who paid, and what was their part?"),
    Item("18b", "Conflicts of interest", "Which conflicts of interest?"),
    Item("18c", "Protocol", "Where is the protocol, or is there none?"),
    Item("18d", "Registration", "Where is the study registered, or is it not?"),
    Item("18e", "Data sharing", "How can the data be had?", "{data_availability}", "How to cite"),
    Item("18f", "Code sharing", "How can the code be had?", "{availability}", "How to cite"),
    Item("19", "Public", "How were patients and the public involved, or were they not?"),
    Item("20a", "Results, participants", "How many took part, with and without the outcome?", "{flow}", "Data"),
    Item("20b", "Results, participants", "What are they like, overall and by source?", "{parts}", "Data"),
    Item("20c", "Results, participants", "How do test cases compare with training cases?", "{parts}", "Data"),
    Item("21", "Results, development", "How many patients and events in each analysis?", "{parts}", "Data"),
    Item("22", "Results, specification", "Can others apply the full model?", "{availability}", "How to cite; Runs"),
    Item(
        "23a",
        "Results, performance",
        "How good is it, with intervals, in subgroups too?",
        "{performance}",
        "Table 1, Table 2",
    ),
    Item("23b", "Results, performance", "How does performance vary between clusters?", "{spread}", "Table 1, Table 2"),
    Item("24", "Results, updating", "What did an update of the model bring?", "", ""),
    Item("25", "Discussion", "What do the results mean, for fairness as well?"),
    Item("26", "Discussion", "What limits the study, and what follows from that?"),
    Item("27a", "Usability", "What is to be done with poor or missing input?", "{bad_input}", "Data"),
    Item("27b", "Usability", "What must users do, and know?"),
    Item("27c", "Usability", "What is to be studied next?"),
)
